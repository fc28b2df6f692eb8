"""What a model writes by greedy decoding while interventions stay in place."""

from __future__ import annotations

from collections.abc import Sequence

from tv_lens.errors import InvalidArgument
from tv_lens.intervention import Intervention, as_interventions
from tv_lens.kinds import checks_kinds
from tv_lens.model.generation import Decoding, generated
from tv_lens.model.hooked_model import HookedModel
from tv_lens.tasks.prompts import Prompts


@checks_kinds
def written_answers(
    model: HookedModel,
    prompts: Prompts,
    interventions: Intervention | Sequence[Intervention] = (),
    *,
    tokens: int = 8,
    stop: str | None = "\n",
) -> list[str]:
    """What greedy decoding writes after each prompt, up to `stop`.

    `tv.score(...).exact_match` answers the same question without writing: it is 1 if the text begins with the answer.
    `model.generate` writes after any prompts, and can repeat an edit at every new token.

    Args:
        model: the model that writes.
        prompts: the prompts that it continues.
        interventions: in place while it writes. Positions count within the prompt: -1 is the prompt's last token, also
            when more tokens follow it.
        tokens: how many tokens are written at most.
        stop: text that ends an answer; if None, all tokens are returned.

    Example:
        >>> from tv_lens.circuits.truth import induction
        >>> known = induction(n=2)
        >>> written_answers(known.model, known.prompts.clean, tokens=1)
        ['D', 'G']
    """
    if tokens < 1:
        raise InvalidArgument("An answer has at least one token.", got=f"tokens={tokens}")
    batch, edits = model.tokens(prompts.tokenize(model).tokens), as_interventions(interventions)
    ids, _ = generated(model, batch, edits, Decoding(tokens), budget=model.memory_budget, who="written_answers")
    texts = model.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [text if stop is None else text.partition(stop)[0] for text in texts]
