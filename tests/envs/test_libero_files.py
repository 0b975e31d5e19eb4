"""LIBERO's files, without its simulator: nothing in them is run, nothing is asked, and what is missing is named."""

import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from metalora_jax.envs import libero_files as files

STATES = np.random.default_rng(0).normal(size=(50, 12))


def text(value):
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def pickled(states):
    """What `torch.save` puts into data.pkl for an array of at most 255 rows and columns, written out by hand."""
    rows, columns = states.shape
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02c_codecs\nencode\nq\x03"
    array += text("b") + b"q\x04" + text("latin1") + b"q\x05\x86q\x06Rq\x07\x87q\x08Rq\x09"
    array += (
        bytes([*b"(K\x01K", rows, *b"K", columns]) + b"\x86q\x0acnumpy\ndtype\nq\x0b" + text("f8") + b"q\x0c\x89\x88"
    )
    array += b"\x87q\x0dRq\x0e(K\x03" + text("<") + b"q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b\x89h\x03"
    return b"\x80\x02" + array + text(states.tobytes().decode("latin1")) + b"q\x11h\x05\x86q\x12Rq\x13tq\x14b."


@pytest.fixture
def saved(tmp_path):
    """Writes a file of initial states, its pickle changed by `change`."""

    def save(change=lambda data: data, states=STATES):
        path = tmp_path / "put_it_there.pruned_init"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", change(pickled(states)))
            archive.writestr("archive/version", "3")
        return path

    return save


def test_the_array_is_read(saved):
    np.testing.assert_array_equal(files.read_array(saved()), STATES)


CALL = b"cos\nsystem\n" + text("touch pwned") + b"\x85R0"  # os.system("touch pwned"), and forgets the answer


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: data[:2] + CALL + data[2:], "GLOBAL 'os system' instead of GLOBAL"),
        (lambda data: data[:-1] + CALL + b".", "GLOBAL 'os system' instead of STOP"),
        (
            lambda data: data.replace(b"numpy.core.multiarray\n_reconstruct", b"os\nsystem"),
            "'os system' instead of GLOBAL",
        ),
        (lambda data: data.replace(text("f8"), text("O8")), "BINUNICODE 'O8' instead of BINUNICODE"),
        (lambda data: data[:-1], "not an array of initial states"),
        (lambda data: data[:60], "not an array of initial states"),
        (lambda data: data.replace(b"(K\x01K\x32", b"(K\x01K\x31"), "cannot reshape"),
        (lambda data: b"\x80\x02N.", "NONE 'None' instead of GLOBAL"),
    ],
)
def test_a_tampered_file_is_refused_by_name_and_never_run(saved, tmp_path, monkeypatch, change, complaint):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(files.InitStateError, match=rf"put_it_there\.pruned_init: .*{complaint}.*reinstall LIBERO"):
        files.read_array(saved(change))
    assert not (tmp_path / "pwned").exists()


def test_damaged_files(saved, tmp_path):
    with pytest.raises(files.InitStateError, match="not all numbers are finite"):
        files.read_array(saved(states=np.full((50, 3), np.nan)))
    path = saved()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(files.InitStateError, match=r"put_it_there\.pruned_init: .*not a zip"):
        files.read_array(path)
    with pytest.raises(files.InitStateError, match="No such file"):
        files.read_array(tmp_path / "none.pruned_init")


def test_without_libero(monkeypatch):
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    files._suites.cache_clear()
    with pytest.raises(files.MissingLibero, match="LIBERO is not installed; install it with: make libero"):
        files.tasks()


def test_unknown_suite():
    with pytest.raises(ValueError, match="no LIBERO suite named 'object'; choose from libero_spatial, libero_object"):
        files.suite_tasks("object")


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A LIBERO without assets of its own, and no folder named."""
    monkeypatch.setattr(files, "package", lambda: tmp_path / "libero")
    monkeypatch.delenv(files.ASSETS, raising=False)
    return tmp_path


def test_assets_from_a_named_folder(nowhere, monkeypatch):
    for part in files._ASSET_FOLDERS:
        (nowhere / "mine" / part).mkdir(parents=True)
    monkeypatch.setenv(files.ASSETS, str(nowhere / "mine"))
    assert files.assets() == nowhere / "mine"
    (nowhere / "mine" / "scenes").rmdir()
    with pytest.raises(files.MissingLibero, match=rf"{files.ASSETS}=.*mine: .* scenes/ is missing"):
        files.assets()


def test_assets_that_are_nowhere(nowhere, monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(files.MissingLibero, match=rf"no network.*set {files.ASSETS} to that folder"):
        files.assets()


def test_assets_of_the_hub(nowhere, monkeypatch):
    for part in files._ASSET_FOLDERS:
        (nowhere / "cache" / part).mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, repo_type: nowhere / "cache")
    assert files.assets() == nowhere / "cache"


def test_the_config_is_written_once_and_the_users_is_left_alone(nowhere, monkeypatch):
    monkeypatch.setenv("HOME", str(nowhere / "home"))
    monkeypatch.setenv("METALORA_CACHE", str(nowhere / "cache"))
    monkeypatch.delenv(files.CONFIG, raising=False)
    files.settle_config()
    [config] = nowhere.glob("cache/*/config.yaml")
    assert f'bddl_files: "{nowhere}/libero/bddl_files"' in config.read_text()
    assert [path.name for path in config.parent.iterdir()] == ["config.yaml"]
    assert not (nowhere / "home").exists()
    config.write_text("mine: yes")
    files.settle_config()
    assert config.read_text() == "mine: yes"
    monkeypatch.delenv(files.CONFIG)
    files.settle_config()  # in the cache nothing is the user's: it has been damaged
    assert f'bddl_files: "{nowhere}/libero/bddl_files"' in config.read_text()


@pytest.mark.libero
def test_the_tasks_are_liberos_in_its_order():
    assert len(set(files.tasks())) == 130
    assert files.suite_tasks("libero_object")[:2] == (
        "pick_up_the_alphabet_soup_and_place_it_in_the_basket",
        "pick_up_the_cream_cheese_and_place_it_in_the_basket",
    )
    task = "KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it"
    assert files.suite_of(task) == "libero_10"
    assert files.suite_tasks("libero_10").index(task) == 2
    assert files.instruction(task) == files.language(task) == "turn on the stove and put the moka pot on it"
    with pytest.raises(ValueError, match="'turn_on_stove'; near: turn_on_the_stove"):
        files.instruction("turn_on_stove")


@pytest.mark.libero
def test_every_task_has_its_files():
    for task in files.tasks():
        assert files.definition(task).exists()
        assert files.init_states(task).shape[0] == 50
    differ = [task for task in files.tasks() if files.language(task).lower() != files.instruction(task)]
    assert len(differ) == 29  # LIBERO contradicts itself; see `instruction`


@pytest.mark.libero
def test_importing_asks_nothing_and_brings_no_torch(tmp_path):
    code = (
        "import sys; from metalora_jax.envs import libero, libero_files;"
        "libero_files.assets = lambda: '.'; libero._import_libero();"
        "assert not {'torch', 'libero.libero.benchmark'} & set(sys.modules)"
    )
    environment = {"HOME": str(tmp_path), "PATH": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "macro" not in done.stdout + done.stderr
    assert not (tmp_path / ".libero").exists()
