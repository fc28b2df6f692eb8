"""What a report proposes to do next: lines of code that run as they stand, with the layer and vector of this survey."""

from __future__ import annotations

import shlex

from tv_lens.experiments.task_survey.result import TaskSurvey


def lines_of_code(result: TaskSurvey, out: str) -> list[str]:
    """The parts of the section: lines of Python and lines for a shell, ready to be pasted.

    Args:
        result: what `survey` returned.
        out: the folder that it was saved to.
    """
    name, settings = result.best, result.settings
    layer, task = result.vectors[name].site.layer, result.asked.get(name) or "my_pairs.json"
    known = settings["template"] in ("qa", "arrow", "io")
    template = f", template=tv.tasks.{settings['template'].upper()}" if known and settings["template"] != "qa" else ""
    query = result.tasks[name].queries(1)[0].input
    python = f"""import tv_lens as tv

model = tv.load({result.source!r})
task = tv.task({task!r}{template})
vector = tv.TaskVector.load({f"{out}/{result.vector_files[name]}"!r}, model)

# one prompt without demonstrations, asking for {query!r}: the next token as it is, and with the vector
prompt = task.queries(n=1)[0].text
for edits in ((), vector.replace()):
    print(repr(model.tokenizer.decode(model.run(prompt, edits).argmax())))

# does it also work when it is added to what stands there, instead of replacing it?
print(tv.evaluate(model, vector, task, scale=1.0))

# which attention heads bring the task to the last token, up to layer {layer}?
pairs = task.pairs(shots=4, n=8, corrupt="shuffle_labels")
heads = tv.sites("z", layer=list(range({max(0, layer - 6)}, {layer + 1})), pos=-1)
sweep = tv.patch(model, pairs, heads, over=("layer", "head"))
tv.plot(sweep).save("heads.html")"""
    model = f"--model {shlex.quote(result.source)}"
    given = [str(one) for one in result.asked.values() if one] or ["my_pairs.json"]
    tasks = " ".join(f"--task {shlex.quote(one)}" for one in given)
    flag = f" --template {settings['template']}" if template else ""
    other = "arrow" if settings["template"] != "arrow" else "qa"
    shell = f"""# more prompts, every layer: narrower intervals
tv-lens survey {model} {tasks} \\
    --shots {settings["shots"]}{flag} --size full --out {shlex.quote(out.rstrip("/") + "-full")}

# fewer demonstrations, another template
tv-lens survey {model} --task {shlex.quote(task)} --shots 4 --template {other} --out {other}

# your own pairs: [{{"input": "…", "output": "…"}}, …], or a .csv, .tsv or .jsonl file
tv-lens audit {model} --task my_pairs.json
tv-lens survey {model} --task my_pairs.json --out mine

# what else there is
tv-lens tasks
tv-lens models"""
    return [
        f"In Python, with the vector of {name} after layer {layer}:",
        f"```python\n{python}\n```",
        "From a shell:",
        f"```sh\n{shell}\n```",
    ]
