"""The command line: the published arguments, files and flags, wrong values, interrupts, full disks."""

import contextlib
import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import pytest
from ff_process import ff_environment
from hypothesis import given, settings
from hypothesis import strategies as st

import ff as package
from ff import cli
from ff.data.registry import DATASETS
from ff.files import read_json
from ff.learn.recipes import RECIPES, RecipeSettings
from ff.settings import ExecutionConfig, MeasureConfig, RunConfig

QUICK = ("--dataset", "DIGITS", "--layers", "784,12,10", "--rep-epochs", 1, "--softmax-epochs", 1, "--val-size", 200)
RUN = Path("results/DIGITS/784-12-10/ff/seed0")
# The published CLI, and what DESIGN and the issue add to it: argument, setting, default.
PUBLISHED = [
    ("--layers", "layers", (784, 100, 100, 100)),
    ("--rep-epochs", "rep_epochs", 10),
    ("--softmax-epochs", "softmax_epochs", 10),
    ("--train-batch-size", "train_batch_size", 256),
    ("--test-batch-size", "test_batch_size", 512),
    ("--dataset", "dataset", "MNIST"),
    ("--seed", "seed", 0),
    ("--no-cuda", "no_cuda", False),
    ("--enable-hw-monitor", "sidecar", "inline"),
    ("--sidecar", "sidecar", "inline"),
    ("--project", "project", "edgeff"),
    ("--val-size", "val_size", 10_000),
    ("--hw-interval-ms", "hw_interval_ms", 500),
    ("--idle-s", "idle_s", 5.0),
    ("--recipe", "recipe", "ff"),
    ("--device", "device", "auto"),
    ("--precision", "precision", "float32"),
    ("--threads", "threads", 0),
    ("--data-dir", "data_dir", "data"),
    ("--out", "out", "results"),
]
OTHER = {
    "--layers": ("784,20,10", (784, 20, 10)),
    "--dataset": ("SVHN", "SVHN"),
    "--no-cuda": ("true", True),
    "--enable-hw-monitor": ("false", "off"),
    "--sidecar": ("off", "off"),
    "--recipe": ("edgeff", "edgeff"),
    "--precision": ("float64", "float64"),
}


# What a plain training must not load, and what it must be able to do without.
HEAVY = ("pandas", "matplotlib", "sklearn", "scipy", "wandb", "torchvision", "snakemake", "yaml", "PIL", "jsonschema")
OPTIONAL = ("psutil", "pynvml", "tqdm", "dotenv")


class Asked(Exception):
    """Raised in the place of a training, with what it was asked for."""


@pytest.fixture
def asked(monkeypatch):
    """Call `ff train` in this process up to the training; gives (RunConfig, ExecutionConfig, warnings)."""

    def refuse(config, execution, seeds=None, warnings=(), **_):
        raise Asked(config, execution, list(warnings))

    monkeypatch.setattr("ff.learn.run.train", refuse)

    def call(*arguments: object):
        with pytest.raises(Asked) as caught:
            cli.main(["train", "--no-wandb", *map(str, arguments)])
        return caught.value.args

    return call


def setting(config, execution, name: str):
    for one in (config, execution, config.settings):
        if hasattr(one, name):
            return getattr(one, name)
    raise AssertionError(name)


@pytest.mark.parametrize(("argument", "name", "default"), PUBLISHED)
def test_every_published_argument_with_its_default(asked, argument, name, default):
    config, execution, warnings = asked()
    assert setting(config, execution, name) == default
    assert warnings == []
    text, value = OTHER.get(argument, ("3", "3" if isinstance(default, str) else 3))
    if argument == "--hw-interval-ms":
        text, value = "30", 30
    given_to = ["--layers", "3072,20,10"] if argument == "--dataset" else []
    config, execution, _ = asked(*given_to, argument, text)
    assert setting(config, execution, name) == value
    config, execution, _ = asked(*given_to, f"{argument}={text}")
    assert setting(config, execution, name) == value


def test_every_setting_has_an_argument_and_its_help_says_the_default(capsys):
    with pytest.raises(SystemExit) as leaving:
        cli.main(["train", "--help"])
    assert leaving.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for kind in (RunConfig, ExecutionConfig, RecipeSettings):
        for field in dataclasses.fields(kind):
            if not field.metadata:
                continue
            default = field.default
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
            assert f"--{field.name.replace('_', '-')} " in text
            assert f"[{shown.lower() if isinstance(default, bool) else shown}]" in text, field.name
            assert field.metadata["help"] in text, field.name


@pytest.mark.parametrize(
    ("flag", "name", "on_and_off"),
    [
        ("--no-cuda", "no_cuda", (True, False)),
        ("--enable-hw-monitor", "sidecar", ("inline", "off")),
        ("--verify", "verify", (True, False)),
        ("--download", "download", (True, False)),
    ],
)
def test_switches_stand_alone_or_take_a_value(asked, flag, name, on_and_off):
    for words, value in [
        ([flag], True),
        *[([flag, word], True) for word in ("true", "True", "TRUE", "1", "yes", "on")],
        *[([flag, word], False) for word in ("false", "False", "0", "no", "off")],
        ([f"{flag}=false"], False),
        ([flag, "--seed", "4"], True),
    ]:
        config, execution, _ = asked(*words)
        assert setting(config, execution, name) == on_and_off[not value], words
    assert config.seed == 4


@pytest.mark.parametrize(
    ("line", "sidecar"),
    [
        ("sidecar: off", "off"),
        ("sidecar: inline", "inline"),
        ("enable-hw-monitor: false", "off"),
        ("enable_hw_monitor: 'on'", "inline"),
    ],
)
def test_a_config_file_says_who_records_also_by_the_published_name(asked, tmp_path, line, sidecar):
    path = tmp_path / "run.yaml"
    path.write_text(f"{line}\n")
    assert asked("--config", path)[1].sidecar == sidecar
    assert asked("--config", path, "--enable-hw-monitor", "false")[1].sidecar == "off"


def test_a_config_file_gives_settings_and_the_command_line_wins(asked, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "dataset: DIGITS\nlayers: [784, 30, 10]\nseed: 5\nrep-epochs: 3\nno-cuda: true\nlearning_rate: 1e-3\n"
        "recipe: mine\nrecipes:\n  mine: {base: edgeff, alpha: 9}\n"
    )
    config, execution, _ = asked("--config", path, "--seed", 8, "--no-cuda", "false")
    assert (config.dataset, config.layers, config.seed, config.rep_epochs) == ("DIGITS", (784, 30, 10), 8, 3)
    assert execution.no_cuda is False
    assert (config.settings.learning_rate, config.settings.alpha, config.settings.loss) == (0.001, 9.0, "threshold")
    assert asked("--config", path, "--learning-rate", 0.2)[0].settings.learning_rate == 0.2


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("layer: 3", "unknown setting 'layer'"),
        ("- a\n- b", "name: value"),
        ("just text", "name: value"),
        ("a: [1", "not valid YAML"),
        ("a: *b", "not valid YAML"),
        ("!!python/object/apply:os.system ['touch hacked']", "not valid YAML"),
        ("seed: 2020-01-01", "seed"),
        ("seed: .inf", "seed"),
        ("layers: 784", "layers"),
        ("sidecar: service", "allowed: inline, off"),
        ("enable_hw_monitor: maybe", "'enable_hw_monitor' must be true or false"),
        ("enable_hw_monitor: true\nsidecar: off", "give one of them"),
        ("learning_rate: [1]", "learning_rate"),
        ("recipes: 3", "recipes"),
        ("recipe: a\nrecipes: {a: 3}", "recipe"),
        ("recipe: a\nrecipes: {a: {1: 2, b: 3}}", "unknown setting"),
        ("1: 2", "unknown setting '1'"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"seed: \x00", "not valid YAML"),
        (None, "cannot read config file"),
    ],
)
def test_config_files_that_make_no_sense_are_one_sentence(content, part, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("run.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert cli.main(["train", "--config", "run.yaml"]) == 1
    message = one_sentence(capsys.readouterr().err)
    assert part in message
    assert not Path("hacked").exists()


def one_sentence(stderr: str) -> str:
    """The last line, which must be an explanation by ff, with no traceback before it."""
    assert "Traceback" not in stderr
    [message] = [line for line in stderr.strip().splitlines() if line.startswith("ff")][-1:]
    assert len(message) < 900
    return message


TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", "0", "-1", "nan", "inf", "1e400", "1e30", "true", "784,10", "10,784", "784-10", "..", "a/b", "9" * 30]
    ),
)
SETTINGS = [f for kind in (RunConfig, ExecutionConfig, RecipeSettings) for f in dataclasses.fields(kind) if f.metadata]


@given(st.dictionaries(st.sampled_from([f.name for f in SETTINGS]), TEXTS, min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_values_on_the_command_line_give_a_training_or_one_sentence(values):
    def refuse(config, execution, **_):
        raise Asked

    arguments = [f"--{name.replace('_', '-')}={text}" for name, text in values.items()]
    stderr = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(stderr):
        patch.setattr("ff.learn.run.train", refuse)
        try:
            code = cli.main(["train", "--no-wandb", *arguments])
        except SystemExit as leaving:
            code = leaving.code
        except Asked:
            return
    assert code in (1, 2)
    one_sentence(stderr.getvalue())


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        ([], 2, "COMMAND"),
        (["fly"], 2, "fly"),
        (["train", "--fast"], 2, "--fast"),
        (["train", "--seed"], 2, "--seed"),
        (["train", "--no-cuda", "maybe"], 2, "neither true nor false"),
        (["train", "--seed", "many"], 1, "seed"),
        (["train", "--dataset", "EMNIST"], 1, "MNIST, FMNIST, KMNIST, SVHN, CIFAR10, CIFAR100, DIGITS"),
        (["train", "--recipe", "best"], 1, f"known recipes: {', '.join(sorted(RECIPES))}"),
        (["train", "--device", "abacus"], 1, "abacus"),
        (["train", "--layers", "64,10", "--dataset", "DIGITS"], 1, '"784,10"'),
        (["prepare"], 2, "DATASET"),
        (["prepare", "EMNIST"], 1, "EMNIST"),
        (["evaluate"], 1, "run folders"),
        (["evaluate", "nowhere"], 1, "nowhere/model.safetensors"),
        (["measure", "a", "--batch-sizes", "1,x"], 1, "--batch-sizes"),
    ],
)
def test_wrong_usage_is_explained(arguments, code, part, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    try:
        found = cli.main(arguments)
    except SystemExit as leaving:
        found = leaving.code
    stderr = capsys.readouterr().err
    assert found == code
    assert part in stderr
    # One sentence, not the whole usage.
    assert stderr.count("\n") == 1
    assert stderr.startswith("ff: ")


@pytest.fixture
def scored(monkeypatch, tmp_path):
    """Call evaluate, measure or figures up to their work; gives what it was asked to do, call by call."""
    monkeypatch.chdir(tmp_path)
    asked: list[str] = []

    def opened(folders, _):
        asked.extend(str(folder) for folder in folders)
        return []

    for command in ("evaluate", "measure"):
        monkeypatch.setattr(f"ff.commands.{command}.opened_runs", opened)
    # What a fork was asked is not known here.
    monkeypatch.setattr("ff.measure.apart.apart", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr("ff.summary.report.write_everything", lambda results: asked.append(str(results)))

    def call(*arguments: object):
        asked.clear()
        assert cli.main(list(map(str, arguments))) == 0
        return asked if arguments[0] != "figures" else asked[0]

    return call


ONE_FILE = """
dataset: DIGITS
layers: "784,30,10"
seed: 3
recipe: mine
recipes: {mine: {base: edgeff}}
alpha: 3
rep-epochs: 2
out: elsewhere
device: cpu
devices: [cpu]
batch-sizes: [1, 8]
repeats: 5
early_exit: true
"""


@pytest.mark.parametrize("command", ["evaluate", "measure"])
def test_a_config_file_names_the_runs(scored, command):
    Path("run.yaml").write_text(ONE_FILE)
    assert scored(command, "--config", "run.yaml") == ["elsewhere/DIGITS/784-30-10/mine/seed3"]
    assert scored(command, "some/run", "--config", "run.yaml") == ["some/run"]
    Path("runs.yaml").write_text('layers: ["784,10", "784,20"]\nseed: [0, 1]\ndataset: [MNIST, SVHN]')
    assert scored(command, "--config", "runs.yaml") == [
        f"results/{dataset}/{size}-{width}/ff/seed{seed}"
        for dataset, size in (("MNIST", 784), ("SVHN", 3072))
        for width in (10, 20)
        for seed in (0, 1)
    ]
    Path("run.yaml").write_text("layers: [784, 20, 10]")
    assert scored(command, "--config", "run.yaml") == ["results/MNIST/784-20-10/ff/seed0"]


def test_figures_take_the_results_folder_of_a_config_file(scored):
    Path("run.yaml").write_text(ONE_FILE)
    assert scored("figures", "--config", "run.yaml") == "elsewhere"
    assert scored("figures", "here", "--config", "run.yaml") == "here"
    Path("run.yaml").write_text("results: there")
    assert scored("figures", "--config", "run.yaml") == "there"
    assert scored("figures") == "results"


def test_one_config_file_serves_all_commands(asked, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(ONE_FILE)
    config, execution, _ = asked("--config", path)
    assert (config.name, execution.out) == ("DIGITS/784-30-10/mine/seed3", "elsewhere")


def test_options_in_a_config_file_are_those_of_the_command_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(ONE_FILE)
    given = []

    def remember(args):
        given.append(args)
        return []

    for command in ("evaluate", "measure"):
        monkeypatch.setattr(f"ff.commands.{command}.named_runs", remember)
    assert cli.main(["measure", "--config", "run.yaml"]) == 0
    assert cli.main(["measure", "--config", "run.yaml", "--repeats", "7", "--batch-sizes", "4"]) == 0
    assert cli.main(["evaluate", "--config=run.yaml"]) == 0
    assert [(args.devices, args.batch_sizes, args.repeats) for args in given[:2]] == [
        (["cpu"], "1,8", 5),
        (["cpu"], "4", 7),
    ]
    assert given[2].early_exit is True
    assert cli.main(["measure", "run"]) == 0
    defaults = MeasureConfig()
    assert given[3].batch_sizes == ",".join(map(str, defaults.batch_sizes))
    assert (given[3].repeats, given[3].energy_windows) == (defaults.repeats, defaults.energy_windows)


@pytest.mark.parametrize(
    ("command", "content", "code", "part"),
    [
        ("evaluate", "early_exit: true", 1, "a --config file with dataset, layers and seed"),
        ("evaluate", "seed: 1\nearly_exit: often", 1, "'early_exit' in run.yaml is 'often'; allowed: true, false"),
        ("evaluate", "seed: 1\nhelp: true", 1, "unknown setting 'help' in run.yaml"),
        ("measure", "seed: 1\nrepeats: many", 2, "--repeats: invalid int value: 'many'"),
        ("measure", "seed: 1\ndevices: [abacus]", 1, "abacus"),
        ("measure", "seed: [1, x]", 1, "'seed'"),
        ("figures", "colour: red", 1, "unknown setting 'colour' in run.yaml"),
        ("figures", None, 1, "cannot read config file run.yaml"),
    ],
)
def test_a_config_file_that_makes_no_sense_to_a_command_is_one_sentence(
    command, content, code, part, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("run.yaml").write_text(content)
    try:
        found = cli.main([command, "--config", "run.yaml"])
    except SystemExit as leaving:
        found = leaving.code
    assert found == code
    assert part in one_sentence(capsys.readouterr().err)


def test_the_version(ff):
    done = ff("--version")
    assert (done.returncode, done.stdout) == (0, f"ff {package.__version__}\n")


def test_a_colour_set_with_784_layers_warns_once(asked):
    config, _, warnings = asked("--dataset", "CIFAR10", "--layers", "784,20,10")
    assert config.layers == (3072, 20, 10)
    assert len(warnings) == 1
    assert "became 3072" in warnings[0]


def test_the_data_folder_is_the_argument_else_the_environment_else_the_file_else_data(asked, monkeypatch, tmp_path):
    file = ("--config", tmp_path / "c.yaml")
    file[1].write_text("data_dir: /from/file")
    for environment, expected in ((None, "/from/file"), ("", "/from/file"), ("/from/environment", "/from/environment")):
        if environment is not None:
            monkeypatch.setenv("FF_DATA_DIR", environment)
        assert asked()[1].data_dir == (environment or "data")
        assert asked(*file)[1].data_dir == expected
        assert asked("--data-dir", "mine")[1].data_dir == "mine"
        assert asked(*file, "--data-dir", "mine")[1].data_dir == "mine"


def test_train_from_nothing_and_then_prepare(ff, tmp_path):
    done = ff("train", *QUICK)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    metrics = read_json(tmp_path / RUN / "metrics.json")
    assert line.startswith(f"DIGITS/784-12-10/ff/seed0: test accuracy {metrics['final']['test_accuracy']:.2%} (head)")
    assert str(RUN) in line
    # Not a terminal: a line an epoch, no bar.
    epochs = [line for line in done.stderr.splitlines() if " epoch " in line]
    assert [line.split(":")[1].strip() for line in epochs] == ["representation epoch 1", "softmax epoch 1"]
    assert "\r" not in done.stderr
    assert (tmp_path / "data/prepared/DIGITS.safetensors").exists()


def test_prepare(warm, tmp_path):
    done = warm(tmp_path, "prepare", "DIGITS", "--prepared-dir", "here")
    assert (done.code, done.stdout) == (0, "DIGITS: 1437 training and 360 test images in here/DIGITS.safetensors\n")
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"DIGITS.safetensors"}


def test_a_plain_training_loads_only_what_it_needs(tmp_path, prepared_dir):
    code = f"""
import sys
from ff.cli import main
assert main({["train", *map(str, QUICK), "--prepared-dir", str(prepared_dir)]!r}) == 0
heavy = {HEAVY!r}
print([name for name in heavy if name in sys.modules], "torch" in sys.modules)
"""
    environment = {key: value for key, value in ff_environment().items() if not key.startswith("WANDB")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[] True", done.stdout + done.stderr


def test_the_core_runs_where_nothing_but_torch_numpy_and_safetensors_is_installed(tmp_path, prepared_dir):
    code = f"""
import sys
for name in {(*HEAVY, *OPTIONAL)!r}:
    sys.modules[name] = None
from ff.cli import main
sys.exit(main({["train", *map(str, QUICK), "--prepared-dir", str(prepared_dir)]!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=ff_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / RUN / "metrics.json").exists()


# -- where the machine says no ----


@pytest.mark.parametrize("limit", [0, 300, 3_000, 60_000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(warm, tmp_path, prepared_dir, limit):
    done = warm(tmp_path, "train", *QUICK, "--prepared-dir", prepared_dir, file_limit=limit)
    # What the test itself writes may not fit either.
    if limit >= 300:
        assert "Traceback" not in done.stderr
    assert done.code == 1
    run = tmp_path / RUN
    assert not (run / "metrics.json").exists()
    assert not (run / "model.safetensors").exists()
    assert not list(run.glob(".*.tmp"))
    again = warm(tmp_path, "train", *QUICK, "--prepared-dir", prepared_dir)
    assert again.code == 0, again.stderr


def test_a_disk_that_is_full_at_once_says_so(warm, tmp_path, prepared_dir):
    done = warm(tmp_path, "train", *QUICK, "--prepared-dir", prepared_dir, file_limit=3_000)
    assert "free space" in one_sentence(done.stderr)


@pytest.mark.parametrize("out", ["/proc/nowhere", "file/below", "/dev/null"])
def test_a_folder_that_cannot_be_written_is_one_sentence(warm, tmp_path, prepared_dir, out):
    (tmp_path / "file").write_text("")
    done = warm(tmp_path, "train", *QUICK, "--prepared-dir", prepared_dir, "--out", out)
    assert done.code == 1
    message = one_sentence(done.stderr)
    assert "cannot write" in message
    assert "--out" in message


def test_a_prepared_folder_that_cannot_be_written_is_one_sentence(warm, tmp_path):
    done = warm(tmp_path, "train", *QUICK, "--prepared-dir", "/proc/nowhere")
    assert done.code == 1
    assert "/proc/nowhere" in one_sentence(done.stderr)


def test_missing_data_are_one_sentence(warm, tmp_path):
    done = warm(tmp_path, "train", "--dataset", "MNIST", "--download", "false", "--data-dir", "empty")
    assert done.code == 1
    message = one_sentence(done.stderr)
    assert "MNIST/raw/train-images-idx3-ubyte" in message
    assert "snakemake --cores 1 demo" in message


def test_divergence_is_one_sentence(warm, tmp_path, prepared_dir):
    done = warm(tmp_path, "train", *QUICK, "--prepared-dir", prepared_dir, "--learning-rate", "1e30")
    assert done.code == 1
    message = one_sentence(done.stderr)
    for part in ("epoch 1", "layer 1", "learning_rate"):
        assert part in message
    assert not (tmp_path / RUN / "metrics.json").exists()


def test_a_reader_that_goes_away_is_no_error(tmp_path, prepared_dir):
    command = [sys.executable, "-c", "import sys; from ff.cli import main; sys.exit(main())"]
    process = subprocess.Popen(
        [*command, "prepare", "DIGITS"],
        cwd=tmp_path,
        env=ff_environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 0


def test_every_command_has_help(capsys):
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as leaving:
            cli.main([name, "--help"])
        assert leaving.value.code == 0, name
        assert f"ff {name}" in capsys.readouterr().out


def test_a_called_command_alone_is_imported_and_its_help_without_what_takes_time():
    code = """
import os, sys
from ff.cli import COMMANDS, main
for name in COMMANDS:
    if os.fork() == 0:
        try:
            main([name, "--help"])
        except SystemExit:
            others = {f"ff.commands.{other}" for other in COMMANDS} & set(sys.modules) - {COMMANDS[name][1]}
            heavy = {"torch", "numpy", "pandas", "wandb", "yaml"} & set(sys.modules)
            print(name, sorted(others | heavy), file=sys.stderr)
            os._exit(0)
    os.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], env=ff_environment(), capture_output=True, text=True)
    assert done.stderr.splitlines() == [f"{name} []" for name in cli.COMMANDS]


def test_the_datasets_of_the_help_are_those_there_are(capsys):
    with pytest.raises(SystemExit):
        cli.main(["prepare", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ", ".join(DATASETS) in text
