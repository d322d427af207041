"""The paper's tables: every row and column is there once, figures are those of the recipes, and all of it becomes commands."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomask.cli import main
from evomask.engine.pretrain import PretrainConfig
from evomask.recipes import evaluation, launch
from evomask.recipes.paper import PAPER, PaperRun
from evomask.recipes.scales import SCALES
from evomask.recipes.table_plan import Wanted, chains_of, plan
from evomask.recipes.table_text import as_markdown
from evomask.recipes.tables import TABLES


@pytest.mark.parametrize("name", TABLES)
def test_rows_have_a_figure_for_each_column_and_are_compared_with_one_another(name: str) -> None:
    table = TABLES[name]
    titles = [row.title for row in table.rows]
    assert len(set(titles)) == len(titles)
    assert len({column.title for column in table.columns}) == len(table.columns)
    for row in table.rows:
        assert len(row.reported) == len(table.columns)
        assert row.against is None or row.against in titles


def test_figures_are_those_of_the_paper_and_of_its_recipes() -> None:
    first = {row.title: row.reported for row in TABLES["table1"].rows}
    assert len(first) == 17
    assert first["random weights"] == (71.53, 21.17, 19.31)
    assert first["evolved, 800 epochs"] == (80.72, 42.02, 39.16)
    assert first["grid, 100 epochs"] == (78.28, 36.65, 36.11)
    second = {row.title: row.reported for row in TABLES["table2"].rows}
    assert second["evolved, 0.75"] == (80.06, 40.59), "not those of the same run in Table IV"
    fourth = {row.title: row.reported for row in TABLES["table4"].rows}
    assert fourth == {
        "only shallow": (57.11, 39.86, 79.05),
        "only deep": (55.07, 39.01, 78.76),
        "evolved": (57.41, 41.37, 80.41),
    }
    pretrained = {row.encoder.name for table in TABLES.values() for row in table.rows if isinstance(row.encoder, PaperRun)}
    assert pretrained >= set(PAPER), "every pretraining of the paper stands in a table"


def wanted(table: str, scale: str, **options: Any) -> Wanted:
    return replace(Wanted(table=table, scale=scale, data=Path("data"), out=Path("out"), seeds=(0, 1)), **options)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What commands come to when they are parsed and not run: folder -> configuration."""
    found: dict[str, Any] = {}

    def start(config: Any, out: Path, command: str) -> Path:
        found[str(out)] = config
        return out

    def start_evaluation(task: str, spec: str, config: Any, out: Path, command: str) -> Path:
        found[str(out)] = (task, spec, config)
        (tmp_path / "result.json").write_text('{"metrics": {}}')
        return tmp_path

    monkeypatch.setattr(launch, "start", start)
    monkeypatch.setattr(evaluation, "start_evaluation", start_evaluation)
    return found


@pytest.mark.parametrize("scale", SCALES)
def test_every_cell_is_a_command_that_can_be_given(scale: str, parsed: dict[str, Any], monkeypatch: Any, capsys: Any) -> None:
    from evomask.recipes import tokenizer

    monkeypatch.setattr(tokenizer, "train_tokenizer", lambda config, out, command: out)
    commands = {
        command.text: command
        for name in TABLES
        for chain in chains_of(plan(wanted(name, scale, seeds=(3,))))
        for command in chain
    }
    for command in commands.values():
        assert main(list(command.whole)) == 0, (command.text, capsys.readouterr().err)
    configs = [config for config in parsed.values() if isinstance(config, PretrainConfig)]
    # Of one size of encoder, a ViT-B's three pretrainings are those of a ViT-S.
    assert len(configs) >= len(PAPER) - (3 if scale != "paper" else 0) and {config.train.seed for config in configs} == {3}
    epochs = {name.rpartition("/")[2]: config.train.epochs for name, config in parsed.items() if "/runs/" in name}
    assert epochs["vit_small_mae_random_800-3"] == {"paper": 800, "mini": 200, "micro": 24}[scale]
    masking = parsed["out/runs/vit_small_mae_large_block_300-3"].masking
    assert (masking.strategy, masking.min_block) == ("block", 16 if scale == "micro" else 49), "a quarter of the patches"
    assert parsed["out/runs/vit_small_mae_deep_300-3"].masking.depth == 0.8
    assert parsed["out/runs/vit_small_mae_random_ratio25_300-3"].masking.ratio == 0.25
    tapped = parsed["out/runs/vit_small_mae_evolved_300-3-of-12-blocks-3"].host
    assert tapped.attention_blocks == (1 if scale == "micro" else 3)
    task, spec, config = parsed["out/results/vit_small_mae_evolved_400-3-segmentation"]
    assert (task, spec, config.loop.seed) == ("segmentation", "out/runs/vit_small_mae_evolved_400-3", 3)


def test_published_encoders_are_shown_images_of_one_size_and_have_folders_that_a_shell_can_name() -> None:
    cells = [cell for cell in plan(wanted("table7", "paper")) if cell.row.title == "DINO v2"]
    assert {cell.evaluation.arguments[3] for cell in cells} == {"timm:vit_base_patch14_reg4_dinov2.lvd142m?image_size=224"}
    name = "timm-vit_base_patch14_reg4_dinov2.lvd142m-image_size-224-0-vqa"
    assert name in {cell.evaluation.folder.name for cell in cells}


def test_table_six_compares_pretrainings_of_as_many_epochs() -> None:
    epochs = {row.title: row.encoder.epochs for row in TABLES["table6"].rows if isinstance(row.encoder, PaperRun)}
    assert epochs == {"MAE": 300, "evolved, 200 epochs": 200, "evolved, 300 epochs": 300}


def test_random_weights_are_those_that_a_pretraining_of_the_same_seed_starts_from() -> None:
    cells = plan(wanted("table1", "micro"))
    specs = [shlex.split(cell.evaluation.text) for cell in cells if cell.row.title == "random weights"]
    encoders = [words[words.index("--encoder") + 1] for words in specs]
    assert set(encoders) == {f"untrained:out/runs/vit_small_mae_grid_100-{seed}" for seed in (0, 1)}


def test_published_weights_are_stood_in_for_or_left_out_at_a_small_scale() -> None:
    titles = {cell.row.title for cell in plan(wanted("table7", "mini"))}
    assert titles == {"MAE", "evolved"}
    columns = {cell.column.title for cell in plan(wanted("table7", "mini"))}
    assert len(columns) == 6 and not any("VCR" in title for title in columns)
    assert len({cell.column.title for cell in plan(wanted("table10", "mini"))}) == 2, "products are neither medium nor hard"
    evolved = {cell.needed[-1].folder.name for cell in plan(wanted("table7", "mini")) if cell.row.title == "evolved"}
    assert evolved == {"vit_small_mae_evolved_300-0", "vit_small_mae_evolved_300-1"}, "the pretraining of Table IV"
    text = as_markdown(wanted("table7", "mini"), plan(wanted("table7", "mini")))
    assert "At this scale MAE is vit_small_mae_random_300, evolved is vit_small_mae_evolved_300." in text
    assert "Not at this scale: DeiT, CLIP, DINO, DINO v2." in text
    assert {cell.row.title for cell in plan(wanted("table7", "paper"))} == {"DeiT", "CLIP", "DINO", "DINO v2", "MAE", "evolved"}
