"""The class of extraction methods: a method is a frozen dataclass, and a new one is a new file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

from tv_lens.method_value import MethodValue
from tv_lens.model.hooked_model import HookedModel
from tv_lens.storage.run_folder import FolderLike
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template


class Method(MethodValue):
    """A way to extract a task vector: a frozen dataclass whose fields are its options.

    A method is a value, so it is saved with the vectors that it made and can make their controls later.
    """

    purpose: ClassVar[str] = "extraction"
    examples: ClassVar[str] = "tv.methods.ResidualMean(layer=20), tv.methods.FunctionVector()"

    @abstractmethod
    def extract(
        self, model: HookedModel, task: Task, *, seed: int = 0, progress: bool = True, folder: FolderLike = None
    ) -> TaskVector:
        """The task vector; called by `tv.extract`. Each stage keeps its shards inside `folder`."""

    @abstractmethod
    def fixed(self, layer: int, template: Template) -> Method:
        """The same method at one layer and under one template, with which control vectors are extracted."""

    def alike(self, description: Mapping[str, Any]) -> Method:
        """The method that makes the controls of a vector with this description, with the parts chosen for it."""
        return self

    def own_controls(
        self,
        model: HookedModel,
        task: Task,
        vector: TaskVector,
        count: int,
        *,
        seed: int = 0,
        progress: bool = True,
        folder: FolderLike = None,
    ) -> dict[str, list[TaskVector]]:
        """Controls that only this method has, by the name of their condition; most methods have none."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """The method's name and options, as JSON holds them."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        if isinstance(options.get("template"), Template):
            options["template"] = options["template"].to_dict()
        return {"name": type(self).__name__, **options}

    @classmethod
    def named(cls, name: str) -> type[Method] | None:
        """The method's class of this name, among all that derive from this one; None if there is none."""
        for method in cls.__subclasses__():
            found = method if method.__name__ == name else method.named(name)
            if found is not None:
                return found
        return None

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> Method:
        """The method that `to_dict` describes, as an object of this class."""
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        known = {name: options[name] for name in names if name in options}
        if known.get("template") is not None:
            known["template"] = Template(**known["template"])
        return cls(**known)
