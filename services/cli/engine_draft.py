"""`aquiline engine draft`: train an EAGLE3 draft for a model of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.model import (
    BatchTokensOption,
    BudgetOption,
    DryRunOption,
    EpochsOption,
    ExamplesArgument,
    LearningRateOption,
    StepsOption,
    ended,
    say,
    until_stopped,
)

app = typer.Typer(help="EAGLE3 drafts for models of your own.", no_args_is_help=True)


@app.callback()
def draft() -> None:
    """EAGLE3 drafts for models of your own."""


@app.command()
def train(
    examples_file: ExamplesArgument,
    *,
    model: Annotated[Path, typer.Option(help="Folder of the target in Llama's form, its adapter merged in.")],
    out: Annotated[Path, typer.Option(help="Folder for the draft; an interrupted run in it is continued.", metavar="FOLDER")],
    intermediate_size: Annotated[int, typer.Option(min=1, help="Width of the draft's feed-forward part.")] = 1_024,
    vocabulary: Annotated[int, typer.Option(min=1, help="Tokens that the draft can say: those that answers use most.")] = 2_048,
    chain: Annotated[
        int, typer.Option(min=1, help="Tokens that are drafted one after the other: the engine's --speculative-num-steps.")
    ] = 3,
    learning_rate: LearningRateOption = 1e-3,
    batch_tokens: BatchTokensOption = 32_768,
    epochs: EpochsOption = 3,
    steps: StepsOption = 0,
    budget_s: BudgetOption = None,
    held_out: Annotated[int, typer.Option(min=0, help="Test examples that acceptance is measured on.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Decides the order, and the draft's start.")] = 0,
    dry_run: DryRunOption = False,
) -> None:
    """Train an EAGLE3 draft on the target's hidden states over the examples.

    The target is served with the draft by `aquiline engine serve --model-path MODEL --draft-path OUT`. Ctrl-C stops after a step and
    writes a checkpoint; the same command continues from it.
    """
    with until_stopped() as wanted:
        from services.training.command_inputs import llama_folder, read_inputs, spread  # noqa: PLC0415
        from services.training.draft_training import DraftSettings, train_draft  # noqa: PLC0415 - torch
        from services.training.tiny import dry_examples, dry_run_folder, tiny_model  # noqa: PLC0415

        inputs = read_inputs(examples_file)
        settings = DraftSettings(
            intermediate_size=intermediate_size,
            draft_vocab_size=vocabulary,
            chain=chain,
            learning_rate=learning_rate,
            batch_tokens=batch_tokens,
            epochs=epochs,
            steps=steps,
            budget_s=budget_s,
            seed=seed,
        )
        if dry_run:
            some, test = dry_examples(inputs.train), dry_examples(inputs.test)
            small = DraftSettings(intermediate_size=64, draft_vocab_size=1 << 20, chain=chain, batch_tokens=512, steps=2, seed=seed)
            with dry_run_folder(out) as folder:
                target = tiny_model(folder / "tiny-model", [*some, *test])
                done = train_draft(target, some, spread(test, held_out), folder, small, progress=say, wanted=wanted)
        else:
            target, test = llama_folder(model, out, inputs, say), spread(inputs.test, held_out)
            done = train_draft(target, inputs.train, test, out, settings, progress=say, wanted=wanted)
    ended(done, dry_run, f"{out}: draft after {done.steps} steps, {done.seconds:.0f} s; next: aquiline engine serve --draft-path {out} ...")
