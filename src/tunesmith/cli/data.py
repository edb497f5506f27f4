"""`tunesmith data`: look at rows before a job reads them, with the job's own functions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from unicodedata import category

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunesmith.cli import render
from tunesmith.cli.session import FAILED, Output, Session, note, session
from tunesmith.errors import Invalid

if TYPE_CHECKING:
    from tunesmith.api.previews import Preview, PreviewRow
    from tunesmith.data.encode import Encoder
    from tunesmith.data.lint import Report, Tally
    from tunesmith.data.rows import RowRules

app = typer.Typer(help="Rows: are they lawful, and what would be trained on?", no_args_is_help=True)

SHOWN = 20
"""Bad rows that a terminal shows unless asked for all."""
SECONDS = 10.0
"""That a preview may take."""
LENGTH = 2048
"""Tokens a row may have where nothing is said, as in a job's spec."""
OPEN, CLOSE = "⟦", "⟧"
"""Around what is trained on, where there are no colours."""


class Dialect(StrEnum):
    """Whose rules rows are read by."""

    automodel = "automodel"
    unsloth = "unsloth"


ModelName = Annotated[
    str | None,
    typer.Option("--model", help="Also render and count with this model's tokenizer: name or workspace/name."),
]
DialectName = Annotated[Dialect, typer.Option(help="The job's dialect, which says what rows mean.")]
MaxLength = Annotated[int, typer.Option("--max-seq-length", min=1, help="Tokens a row may have.")]
TextField = Annotated[str | None, typer.Option(help="With unsloth: dataset.text_field.")]
ApplyChatTemplate = Annotated[
    bool | None, typer.Option("--apply-chat-template", help="With unsloth: dataset.apply_chat_template.")
]
PromptTemplate = Annotated[str | None, typer.Option(help="With automodel: dataset.prompt_template.")]
ChatTemplate = Annotated[
    Path | None, typer.Option(help="File with a Jinja template to try.", exists=True, dir_okay=False)
]


@app.command()
def lint(
    ctx: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Data files, or a directory as in a fileset.")],
    model: ModelName = None,
    dialect: DialectName = Dialect.automodel,
    max_seq_length: MaxLength = LENGTH,
    all_rows: Annotated[bool, typer.Option("--all", help="Show every bad row.")] = False,
    text_field: TextField = None,
    apply_chat_template: ApplyChatTemplate = None,
    prompt_template: PromptTemplate = None,
    chat_template: ChatTemplate = None,
) -> None:
    """Tell of every bad row, and what the others are like. Exit code 1 when there is a bad one."""
    from tunesmith.data.lint import lint as look

    shell = session(ctx)
    rules = _rules(dialect, text_field, apply_chat_template, prompt_template)
    if model is None:
        report = look(paths, rules)
    else:
        _need_extra()
        with _tokenizer(shell, model, max_seq_length, chat_template) as base:
            report = look(paths, rules, base.encoder())
    if shell.json:
        render.print_json(report.as_json())
    else:
        _show_report(report, None if all_rows else SHOWN)
    if report.faults:
        raise typer.Exit(FAILED)


@app.command()
def preview(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A data file, or a directory as in a fileset.")],
    model: Annotated[str, typer.Option("--model", help="Whose tokenizer and template: name or workspace/name.")],
    rows: Annotated[int, typer.Option(min=1, max=100, help="The first so many training rows.")] = 5,
    dialect: DialectName = Dialect.automodel,
    max_seq_length: MaxLength = LENGTH,
    text_field: TextField = None,
    apply_chat_template: ApplyChatTemplate = None,
    prompt_template: PromptTemplate = None,
    chat_template: ChatTemplate = None,
) -> None:
    """Show rows as the model reads them, with what is trained on in colour (in ⟦brackets⟧ when piped)."""
    from tunesmith.api.previews import Preview
    from tunesmith.data import previews

    shell = session(ctx)
    rules = _rules(dialect, text_field, apply_chat_template, prompt_template)
    _need_extra()
    with _tokenizer(shell, model, max_seq_length, chat_template) as base:
        request = previews.PreviewRequest(
            data=str(path.absolute()),
            model=str(base.directory),
            chat_template=base.chat_template,
            sequence_limit=base.limit,
            rows=rows,
            rules=rules,
            seconds=SECONDS,
        )
        shown = Preview.model_validate(previews.run(request, base.directory.parent))
    if shell.output is Output.json:
        render.print_json(shown.model_dump(mode="json"))
        return
    _show_rows(shown)


# -- the model's part ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Base:
    """What rows are turned into tokens with."""

    directory: Path
    chat_template: str
    """"" = none."""
    limit: int

    def encoder(self) -> Encoder:
        """As a job has it."""
        from tunesmith.data.encode import Encoder

        return Encoder.of(self.directory, self.chat_template, self.limit)


@contextmanager
def _tokenizer(shell: Session, name: str, longest: int, template: Path | None) -> Iterator[_Base]:
    """The model's tokenizer in a temporary directory, with the template and the limit that a job would have."""
    from tunesmith.data.previews import TOKENIZER_FILES

    model = shell.client.models.wait(name)
    if not model.fileset:
        raise Invalid(f"--model: '{name}' has no fileset with a tokenizer; give it one first")
    workspace, _, fileset = model.fileset.rpartition("/")
    where = workspace or model.workspace
    files = {file.path for file in shell.client.files.list(fileset, workspace=where).data}
    calling = shell.client.files.filesets.retrieve(fileset, workspace=where).metadata.model
    own = calling.tool_calling.chat_template if calling and calling.tool_calling else None
    context = model.spec.context_size if model.spec else None
    if context and context < longest:
        note(f"rows may have {context:,} tokens, since that is the context of {name}")
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as scratch:
        directory = Path(scratch) / model.name
        directory.mkdir()
        for file in files.intersection(TOKENIZER_FILES):
            shell.client.files.download(fileset, directory / file, file, workspace=where)
        known = own or (model.spec.chat_template if model.spec else None) or ""
        source = template.read_text(encoding="utf-8") if template else known
        yield _Base(directory, source, min(longest, context or longest))


def _rules(
    dialect: Dialect, text_field: str | None, apply_chat_template: bool | None, prompt_template: str | None
) -> RowRules:
    from tunesmith.data.previews import rules_of

    return rules_of(
        dialect, text_field=text_field, apply_chat_template=apply_chat_template, prompt_template=prompt_template
    )


def _need_extra() -> None:
    from tunesmith.data.previews import need_extra

    need_extra()


# -- on the screen ---------------------------------------------------------------------------------------------------


def _show_report(report: Report, most: int | None) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for fault in islice(report.faults, most):
        key = f"{_plain(fault.key)}: " if fault.key else ""
        told = Text.assemble((_plain(str(fault.place)), "bold"), ": ", (key, "yellow"))
        console.print(told.append(_plain(fault.reason)))
    if most is not None and len(report.faults) > most:
        left = len(report.faults) - most
        console.print(f"and {left:,} more: --all shows them, --output json gives them to programs", style="dim")
    if report.faults:
        console.print()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, words, style in _summary(report):
        table.add_row(heading, Text(_plain(words), style=style))
    Console(highlight=False).print(table)


def _summary(report: Report) -> Iterator[tuple[str, str, str]]:
    """Heading, words, style."""
    counts, tokens = report.counts, report.tokens
    files = f"in {_several(len(report.files.all), 'file')}"
    if report.faults:
        yield "bad rows", f"{len(report.faults):,} {files}", "red"
    split = f" ({counts.validation:,} for validation)" if counts.validation else ""
    of = ", ".join(f"{count:,} {name}" for name, count in counts.formats.items() if count)
    total = counts.training + counts.validation
    yield "lawful rows", f"{total:,}{'' if report.faults else f' {files}'}{split}{f': {of}' if of else ''}", ""
    unit = "token" if tokens else "character"
    if counts.longest_at:
        yield "longest", f"{_several(counts.longest, unit)} ({counts.longest_at})", ""
    if tokens:
        yield "tokens", f"{tokens.tokens:,}, of which {tokens.trained:,} are trained on", ""
        yield "truncated", _tally(tokens.truncated, f"to {tokens.limit:,} tokens"), _warns(tokens.truncated)
        dropped = f"without anything to train on within {tokens.limit:,} tokens"
        yield "dropped", _tally(tokens.dropped, dropped), _warns(tokens.dropped)
    yield "duplicates", _tally(counts.duplicates), _warns(counts.duplicates)
    yield "empty answers", _tally(counts.empty_answers), _warns(counts.empty_answers)
    for said in report.notes:
        yield "note", said, "yellow"


def _tally(tally: Tally, words: str = "") -> str:
    if not tally.count:
        return "none"
    return f"{tally.count:,}{f' {words}' if words else ''}, first {tally.first}"


def _warns(tally: Tally) -> str:
    return "yellow" if tally.count else ""


def _show_rows(shown: Preview) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for number, row in enumerate(shown.rows):
        if number:
            console.print()
        text = Text(_plain(f"{row.file} line {row.line}"), style="bold")
        console.print(text.append(f"  {_facts(row, shown.sequence_limit)}", style="dim"))
        body = Text()
        for piece in row.segments:
            words = _plain(piece.text)
            if not piece.trained:
                body.append(words)
            elif console.is_terminal:
                body.append(words, style="green")
            else:
                body.append(f"{OPEN}{words}{CLOSE}")
        console.print(body, end="" if body.plain.endswith("\n") else "\n")


def _facts(row: PreviewRow, limit: int) -> str:
    facts = f"{row.format}, {_several(row.tokens, 'token')}, {row.trained_tokens:,} trained on"
    if row.truncated:
        facts += f", cut from {row.whole_tokens:,} to {limit:,}"
    return facts if row.trained_tokens else f"{facts}: a job leaves it out"


def _several(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _plain(text: str) -> str:
    """Without what a terminal would obey: a row may come from anywhere."""
    return "".join(
        char if char in "\n\t" or category(char) != "Cc" else char.encode("unicode_escape").decode() for char in text
    )
