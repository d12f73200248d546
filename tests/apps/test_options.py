"""Wrong options end with one sentence and status 2, other failures with theirs, none with a traceback."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from apps.CifarApp import main
from apps.options import Options, training_options
from apps.solvers import load
from apps.training import TrainingData, trainer_of
from sparknet.algorithms import ALGORITHMS, algorithm
from sparknet.data import Transform, cifar10, synthetic
from sparknet.data.locate import locate
from sparknet.errors import DataError, SparkNetError, TrainingError, UsageError, WorkersLost
from sparknet.exits import status_of
from tests.apps.run_app import run_app


def parsed(*arguments: str) -> Options:
    """What an app is given for these arguments."""
    seen: list[Options] = []

    @training_options(tau=10, rounds=20, batch_size=30, solver="a_solver.prototxt")
    def app(options: Options) -> None:
        seen.append(options)

    app.main(list(arguments), standalone_mode=False)
    return seen[0]


def test_an_app_has_its_own_defaults() -> None:
    options = parsed()
    assert (options.tau, options.rounds, options.batch_size) == (10, 20, 30)
    assert (options.solver, options.data, options.sampling) == ("a_solver.prototxt", "auto", "window")
    assert (options.workers, options.time_cap, options.momentum) == (None, None, None)
    assert (options.join_deadline, options.shard_memory, options.deterministic) == (180, None, False)


@pytest.mark.parametrize(
    "both", [("--images", "a", "--dataset", "b"), ("--data", "synthetic", "--images", "a")]
)
def test_what_is_trained_on_is_said_once(both: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="both say what to train on: give one"):
        parsed(*both)
    assert parsed("--dataset", "s3://bucket/x").source == "s3://bucket/x"


def test_every_option_arrives() -> None:
    options = parsed(
        *("--tau", "5", "--rounds", "6", "--batch-size", "7", "--workers", "8", "--time-cap", "1.5"),
        *("--solver", "s.prototxt", "--data", "synthetic", "--seed", "9", "--test-every", "0"),
        *("--output", "out", "--sampling", "epoch", "--algorithm", "slowmo", "--momentum", "keep"),
        *("--checkpoint", "s3://bucket/run", "--checkpoint-every", "7", "--precision", "bf16"),
        *("--checkpoint-patience", "90", "--copy-every", "7"),
        *("--checkpoint-keep", "3", "--resume", "--wire", "int8", "--exchange", "ring", "--profile", "2"),
        *("--quorum", "0.75", "--grace", "1.5", "--deadline", "60", "--tensorboard", "curves"),
        *("--outer-lr", "0.9", "--outer-momentum", "0.3", "--overlap"),
        *("--fragments", "6"),
        *("--tau-schedule", "quadratic", "--tau-growth", "0.2"),
        *("--join-deadline", "30", "--shard-memory", "3m", "--deterministic", "--weights", __file__),
        *("--page-port", "6006"),
    )
    assert options == Options(
        tau=5,
        rounds=6,
        batch_size=7,
        workers=8,
        time_cap=1.5,
        solver="s.prototxt",
        weights=__file__,
        data="synthetic",
        images=None,
        dataset=None,
        seed=9,
        test_every=0,
        output=Path("out"),
        sampling="epoch",
        algorithm="slowmo",
        outer_lr=0.9,
        outer_momentum=0.3,
        moving_rate=None,
        overlap=True,
        fragments=6,
        overhead=0.05,
        tau_schedule="quadratic",
        tau_growth=0.2,
        momentum="keep",
        checkpoint="s3://bucket/run",
        checkpoint_every=7,
        precision="bf16",
        checkpoint_keep=3,
        checkpoint_patience=90.0,
        resume=True,
        wire="int8",
        exchange="ring",
        copy_every=7,
        profile=2,
        quorum=0.75,
        grace=1.5,
        deadline=60.0,
        tensorboard=Path("curves"),
        join_deadline=30.0,
        shard_memory=3_145_728,
        deterministic=True,
        page=True,
        page_port=6006,
    )
    assert not parsed("--no-page").page
    assert parsed("--tau", "auto", "--overhead", "0.1").overhead == 0.1


@pytest.mark.parametrize(
    ("size", "bytes_"),
    [
        ("0b", 0),
        ("17b", 17),
        ("1k", 1024),
        ("512m", 536_870_912),
        ("512MB", 536_870_912),
        ("4g", 4_294_967_296),
        ("2t", 2_199_023_255_552),
    ],
)
def test_a_size_is_what_spark_reads_in_it(size: str, bytes_: int) -> None:
    assert parsed("--shard-memory", size).shard_memory == bytes_


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tau", "0"], "Invalid value for '--tau': 0 is not in the range x>=1"),
        (["--rounds", "-3"], "Invalid value for '--rounds'"),
        (["--batch-size", "many"], "'many' is not a valid integer range"),
        (["--workers", "0"], "Invalid value for '--workers'"),
        (["--time-cap", "0"], "Invalid value for '--time-cap'"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["--test-every", "-1"], "Invalid value for '--test-every'"),
        (["--sampling", "sorted"], "'sorted' is not one of"),
        (["--outer", "adam"], "'adam' is not one of"),
        (["--algorithm", "adam"], "'adam' is not one of"),
        (
            ["--algorithm", "easgd", "--outer", "slowmo"],
            "--algorithm easgd and --outer slowmo name one thing",
        ),
        (["--outer-lr", "2"], "outer_lr is no option of this algorithm"),
        (["--algorithm", "easgd", "--overlap"], "--overlap is for rounds that all workers share"),
        (["--algorithm", "sync", "--tau", "5"], "sync averages the gradient of every step"),
        (["--algorithm", "serial", "--workers", "2"], "serial is one worker alone"),
        (["--fragments", "4"], "give both, or neither"),
        (["--overlap", "--momentum", "average"], "which they do not with --overlap"),
        (["--tau", "auto", "--tau-schedule", "post-local"], "--tau auto is a schedule itself"),
        (["--tau-schedule", "quadratic"], "--tau-growth is the a of --tau-schedule quadratic"),
        (["--tau-growth", "2"], "--tau-growth is the a of --tau-schedule quadratic"),
        (["--overhead", "0"], "Invalid value for '--overhead'"),
        (["--wire", "float64"], "'float64' is not one of"),
        (["--exchange", "tree"], "'tree' is not one of"),
        (["--quorum", "1.5"], "Invalid value for '--quorum'"),
        (["--quorum", "0"], "Invalid value for '--quorum'"),
        (["--grace", "-1"], "Invalid value for '--grace'"),
        (["--deadline", "0"], "Invalid value for '--deadline'"),
        (["--deadline", "nan"], "nan is not in the range x>0"),
        (["--quorum", "nan"], "nan is not in the range 0<x<=1"),
        (["--grace", "NaN"], "NaN is not in the range x>=0"),
        (["--time-cap", "nan"], "nan is not in the range"),
        (["--join-deadline", "0"], "Invalid value for '--join-deadline'"),
        (["--shard-memory", "4"], "'4' is no size: write a whole number and its unit, as 512m or 4g"),
        (["--shard-memory", "1.5g"], "'1.5g' is no size"),
        (["--shard-memory", "-1g"], "'-1g' is no size"),
        (["--profile", "-1"], "Invalid value for '--profile'"),
        (["--checkpoint-keep", "0"], "Invalid value for '--checkpoint-keep'"),
        (["--resume"], "--resume needs --checkpoint"),
        (["--checkpoint-every", "3"], "--checkpoint-every needs --checkpoint: where is the run to be saved?"),
        (["--checkpoint-keep", "3"], "--checkpoint-keep needs --checkpoint"),
        (["--checkpoint-patience", "3"], "--checkpoint-patience needs --checkpoint"),
        (["--overhead", "0.1"], "--overhead is what --tau auto goes by: give both, or neither"),
        (["--exchange", "star", "--copy-every", "3"], "--copy-every is for a ring"),
        (["--algorithm", "easgd", "--copy-every", "3"], "--copy-every is for a ring: elastic averaging"),
        (
            ["--no-page", "--page-port", "6006"],
            "--page-port is that of the page, and --no-page leaves it out",
        ),
        (["--algorithm", "slowmo", "--outer-lr", "inf"], "'--outer-lr': inf is not a finite number"),
        (["--algorithm", "slowmo", "--outer-momentum", "nan"], "'--outer-momentum': nan is not in the range"),
        (["--algorithm", "easgd", "--moving-rate", "nan"], "'--moving-rate': nan is not in the range"),
        (["--deadline", "inf"], "'--deadline': inf is not a finite number"),
        (
            ["--tau-schedule", "quadratic", "--tau-growth", "inf"],
            "'--tau-growth': inf is not a finite number",
        ),
        (["--seed", "18446744073709551616"], "is not in the range 0<=x<=18446744073709551615"),
        (["--grace", "5"], "--grace is what a --quorum below 1 leaves the others"),
        (["--round", "3"], "No such option"),
        (["left", "over"], "unexpected extra argument"),
    ],
)
def test_an_option_that_cannot_be_is_named(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(lambda: main.main(arguments, standalone_mode=False)) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "status", "says"),
    [
        (UsageError("the option"), 2, "Error: the option"),
        (DataError("the data"), 3, "Error: the data"),
        (TrainingError("the run"), 7, "Error: the run"),
        (WorkersLost("the workers"), 7, "Error: the workers"),
        (SparkNetError("something"), 7, "Error: something"),
        (OSError(28, "No space left on device"), 7, "No space left on device"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (click.Abort(), 130, "Interrupted."),
        (click.UsageError("the call"), 2, "Error: the call"),
    ],
)
def test_how_a_run_ends_decides_the_exit_status(
    raised: BaseException, status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        raise raised

    assert status_of(run) == status
    assert capsys.readouterr().err.strip().endswith(says)


def test_two_spellings_of_one_algorithm_are_one() -> None:
    assert parsed().algorithm == "average"
    assert parsed("--outer", "slowmo").algorithm == "slowmo"
    assert parsed("--algorithm", "slowmo", "--outer", "slowmo") == parsed("--outer", "slowmo")


def test_an_algorithm_brings_its_own_tau_unless_one_is_given() -> None:
    assert parsed("--algorithm", "sync").tau == 1
    assert parsed("--algorithm", "easgd-lockfree").tau == 50
    assert parsed("--algorithm", "easgd-lockfree", "--tau", "7").tau == 7
    assert parsed("--tau", "auto").tau == "auto"


def test_help_names_every_algorithm_with_its_paper_its_options_and_what_it_costs() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    for name, each in ALGORITHMS.items():
        assert f"  {name} " in shown
        assert all(said in shown for said in (each.summary, each.paper, each.defaults, f"costs: {each.cost}"))
    assert "--outer-lr 1, --outer-momentum 0.5, --momentum reset; costs: one average" in shown


def crossed(rng: random.Random) -> list[str]:
    """Options of algorithms, schedules and the network, some of them, at random."""
    choices: dict[str, tuple[object, ...]] = {
        "--algorithm": tuple(ALGORITHMS),
        "--outer": tuple(ALGORITHMS),
        "--tau": (1, 7, "auto"),
        "--tau-schedule": ("constant", "post-local", "quadratic"),
        "--tau-growth": (0.2,),
        "--outer-lr": (0.5,),
        "--outer-momentum": (0.3,),
        "--moving-rate": (0.2,),
        "--momentum": ("keep", "average", "reset"),
        "--wire": ("float32", "bfloat16", "int8"),
        "--exchange": ("auto", "star", "ring"),
        "--quorum": (0.5, 1),
        "--workers": (1, 3),
        "--time-cap": (1,),
        "--fragments": (1, 4),
    }
    given = [name for name in choices if rng.random() < 0.25]
    words = [str(word) for name in given for word in (name, rng.choice(choices[name]))]
    return [*words, *(["--overlap"] if rng.random() < 0.3 else [])]


def test_options_that_are_crossed_at_random_make_a_trainer_or_are_refused_in_a_sentence() -> None:
    """Never anything in between: what a run is asked for is what the trainer is told, or it ends at once."""
    data = TrainingData.of(locate("cifar10", "synthetic", seed=0), Transform())
    model = load("cifar10_quick_solver.prototxt", (3, 32, 32), batch_size=2, test_batch_size=2)
    ends, sentences = Counter[str](), list[str]()
    for seed in range(400):
        words = crossed(random.Random(seed))
        try:
            options = parsed(*words)
            trainer = trainer_of(data, options, model)
        except UsageError as error:
            sentences.append(str(error))
            ends["refused"] += 1
            continue
        ends["made"] += 1
        found = algorithm(options.algorithm)
        assert (trainer.algorithm, trainer.overlap) == (options.algorithm, "--overlap" in words)
        assert not ({"--outer-lr", "--outer-momentum"} & set(words)) or "outer_lr" in found.options
        assert "--overlap" not in words or "overlap" not in found.refuses
        assert trainer.cluster.fragments == options.fragments
        assert options.fragments == 1 or trainer.overlap
        assert str(trainer.tau) == str(options.tau) or options.tau_schedule != "constant"
    assert not any("\n" in sentence for sentence in sentences)
    assert ends["made"] > 50
    assert ends["refused"] > 50


def test_help_names_every_option() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    for option in Options.__annotations__:
        assert f"--{option.replace('_', '-')} " in shown


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--data", "nowhere"], 3, "Error: nowhere does not exist"),
        (["--data", "short"], 3, "data_batch_4.bin is 3,000 bytes long"),
        (["--data", "whole", "--solver", "nothing.prototxt"], 2, "Error: nothing.prototxt is neither a file"),
        (["--data", "whole", "--solver", "bad.prototxt"], 2, "Error: bad.prototxt:2:1: "),
        (["--data", "whole", "--output", "bad.prototxt/a"], 2, "Error: --output bad.prototxt/a cannot"),
        (
            ["--data", "whole", "--tensorboard", "bad.prototxt/a"],
            2,
            "Error: --tensorboard bad.prototxt/a cannot",
        ),
        (
            ["--data", "whole", "--tau-schedule", "quadratic", "--tau-growth", "1e300"],
            2,
            "Error: the a of the quadratic rule is 1e+300",
        ),
    ],
)
def test_what_is_wrong_with_files_is_said_in_one_sentence_before_spark_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.prototxt").write_text("base_lr: 0.1\nbase_rl: 0.1\n")
    for folder in ("short", "whole"):
        cifar10.write_binary(synthetic.draw(train=10, test=5), Path(folder))
    Path("short", "cifar-10-batches-bin", "data_batch_4.bin").write_bytes(bytes(3000))
    assert status_of(lambda: main.main(arguments, standalone_mode=False)) == status
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--tau", "0"], 2, "Error: Invalid value for '--tau'"),
        (["--data", "nowhere"], 3, "Error: nowhere does not exist"),
    ],
)
def test_a_real_process_ends_without_a_traceback(
    tmp_path: Path, arguments: list[str], status: int, says: str
) -> None:
    done = run_app("MnistApp", *arguments, folder=tmp_path)
    assert done.returncode == status
    assert says in done.stderr
    assert "Traceback" not in done.stderr
