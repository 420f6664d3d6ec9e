"""The JSON Schema that ships for editors says of a plan file what its loader says."""

from __future__ import annotations

import copy
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tests.command import here
from tests.each import each
from tests.examples import examples
from tests.unit.specs import ODD, WHOLE
from usernsplan.errors import InvalidFileError
from usernsplan.formats import config
from usernsplan.formats.spec import parse
from usernsplan.formats.spec_writer import schema

REPOSITORY = Path(__file__).parents[2]
SCHEMA = json.loads(schema())
VALIDATOR = Draft202012Validator(SCHEMA)
MOUNT = ("at", "persist", "read-only", "protect", "cross-mounts")
MOUNTED = {
    "path": "/c",
    "method": "idmap",
    "at": "/d",
    "persist": True,
    "read-only": True,
    "protect": "parent",
    "cross-mounts": False,
}
OPTIONS = ("size", "block", "container-id", "dockerroot", "max")

# What no JSON Schema can say, and the loader does, in its words: names, volumes and ranges that are equal though they
# are not written the same; a range whose end lies before its start, and ids past the last one; text that shows nothing.
ONLY_THE_LOADER = re.compile(
    r"(stands here|appears) a second time|no such range of ids|is not printable text|there is no such id"
)

Document = dict[str, Any]


def loader_says(found: Any) -> str:  # noqa: ANN401 - any JSON
    """What the loader has against a document, "" for nothing."""
    try:
        # PyYAML does not put JSON's escaped surrogates together.
        parse(json.dumps(found, ensure_ascii=False).encode(), "f")
    except InvalidFileError as error:
        # A value in a message may have a line end of its own.
        return "\n".join(one.replace("\n", " ") for one in error.lines or (str(error),))
    return ""


def accepts(found: Any) -> bool:  # noqa: ANN401
    return bool(VALIDATOR.is_valid(found))


def agree(found: Any) -> None:  # noqa: ANN401
    said = loader_says(found)
    if not said or not all(ONLY_THE_LOADER.search(fact) for fact in said.split("\n")):
        told = [error.message for error in VALIDATOR.iter_errors(found)]
        assert accepts(found) == (not said), (found, said, told)


texts = st.sampled_from(ODD) | st.text(min_size=1, max_size=8).filter(str.isprintable)
numbers = st.integers(0, 9999999999) | st.sampled_from([0, 1, 65536, 4294967294])
ids = st.integers(0, 4294967294)
users = ids | st.builds("{}:{}".format, ids, ids) | ids.map(str) | st.just("012:07")
ranges = (
    ids
    | st.builds(lambda a, b: f"{min(a, b)}-{max(a, b)}", ids, ids)
    | st.sampled_from(["5-1", "0-4294967295", "1-1"])
)
paths = st.text("abz /.~é\n", max_size=6).map(lambda text: f"/{text}")
options: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(OPTIONS, numbers),
    "identity": st.booleans(),
}
volumes = paths | st.fixed_dictionaries(
    {"path": paths},
    optional={
        "mode": st.sampled_from(["own", "shift"]),
        "user": users,
        "method": st.sampled_from(["idmap", "idmap", "chown", "auto"]),
        "at": paths,
        "persist": st.booleans(),
        "read-only": st.booleans(),
        "protect": st.sampled_from(["nosuid", "parent"]),
        "cross-mounts": st.booleans(),
    },
)
containers = texts | st.fixed_dictionaries(
    {"name": texts},
    optional={
        "owner": texts,
        "start": numbers,
        "lines": st.booleans(),
        "user": users,
        "volumes": st.lists(volumes, max_size=3),
        "local": st.booleans(),
        **options,
    },
)
engines = texts | st.fixed_dictionaries({"name": texts}, optional={"containers": numbers})
reservations = st.fixed_dictionaries({"ids": ranges, "for": texts})
documents = st.fixed_dictionaries(
    {"strategy": st.sampled_from(["shared", "single-uid", "per-container"])},
    optional={
        "version": st.just(1),
        "pool": ranges,
        "engines": st.lists(engines, max_size=3),
        "daemon": st.just(value=False) | texts,
        "lines": st.booleans(),
        "containers": st.lists(containers, max_size=3),
        "hosts": st.dictionaries(texts, st.lists(texts, max_size=2), max_size=2),
        "reservations": st.lists(reservations, max_size=3),
        **options,
    },
)

# What stands where something else is wanted. No fraction that is whole: 1.0 is an integer to JSON Schema.
WRONG: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        2,
        -1,
        1.5,
        4294967295,
        9999999999,
        10000000000,
        99999999999999999999,
    ),
    *(
        "",
        "x",
        " ",
        "a\nb",
        "\x1b",
        "\u200b",
        "own",
        "shift",
        "shared",
        "/",
        "/a",
        "a/b",
        "/..",
        "/a/../b",
        "/a/..b",
        "/a\0",
    ),
    *(
        "5",
        "5-6",
        "6-5",
        "05-06",
        "5-",
        "5-6\n",
        "33:33",
        "33:33\n",
        "33:",
        "٣",
        "٣:٣",
        "٣-٤",
        "1" * 11,
        "4294967295:0",
        [],
        {},
    ),
    *(
        [[]],
        [{}],
        [5],
        ["a", "a"],
        ["/a", "/a"],
        {"name": "a"},
        {"path": "/a"},
        {"path": "/a", "mode": "shift", "user": 5},
        {"path": "/a", "at": "/b"},
    ),
    *([{"ids": 5, "for": "me"}, {"ids": "5-5", "for": "me"}], [{"name": "a"}, "a"]),
]


def spots(found: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401
    """The path to every value in a document."""
    inside = (
        found.items()
        if isinstance(found, dict)
        else enumerate(found)
        if isinstance(found, list)
        else ()
    )
    return [path, *(spot for key, value in inside for spot in spots(value, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> Any:  # noqa: ANN401
    """A document in which one thing is exchanged, taken out or put in."""
    found = copy.deepcopy(draw(documents))
    *path, last = draw(st.sampled_from(spots(found)[1:]))
    inside: Any = found
    for key in path:
        inside = inside[key]
    how = draw(st.sampled_from(["exchange", "exchange", "take out", "put in"]))
    if how == "take out":
        del inside[last]
    elif how == "put in" and isinstance(inside, dict):
        key = draw(
            st.sampled_from(
                [
                    "name",
                    "path",
                    "ids",
                    "for",
                    "mode",
                    "user",
                    "method",
                    "at",
                    "x",
                    "",
                    "volumes",
                    "Strategy",
                    *OPTIONS,
                ]
            )
        )
        inside[key] = draw(st.sampled_from(WRONG))
    elif how == "put in":
        inside.insert(last, draw(st.sampled_from(WRONG)))
    else:
        inside[last] = draw(st.sampled_from(WRONG))
    return found


@settings(max_examples=examples(100))
@given(found=documents)
def test_what_is_right_is_right_to_both(found: Document) -> None:
    agree(found)


@settings(max_examples=examples(400))
@given(found=mutated())
def test_what_may_be_wrong_is_wrong_to_both(found: Document) -> None:
    agree(found)


@each("wrong", WRONG)
@pytest.mark.parametrize(
    "path",
    [
        *[(key,) for key in ("version", "strategy", "identity", "pool", "engines", "daemon", "lines", "x", *OPTIONS)],
        *[("reservations",), ("containers",)],
        *[("containers", 0, key) for key in ("name", "owner", "start", "lines", "user", "volumes", "identity", "pool")],
        *[("containers", 0, key) for key in OPTIONS],
        *[("containers", 0, "volumes", 1, key) for key in ("path", "mode", "user", "x", "method")],
        *[("containers", 0, "volumes", 2, key) for key in ("method", *MOUNT)],
        *[("engines", 1, key) for key in ("name", "containers", "x")],
        *[("reservations", 0, key) for key in ("ids", "for", "x")],
        *[("containers", 1), ("containers", 0, "volumes", 0), ("engines", 0), ("reservations", 0), ()],
    ],
    ids=str,
)  # fmt: skip
def test_every_value_in_every_place(path: tuple[Any, ...], wrong: object) -> None:
    found: Any = {
        "strategy": "shared",
        "containers": [{"name": "aa", "volumes": ["/a", {"path": "/b"}, {**MOUNTED}]}, "bb"],
        "engines": ["docker", {"name": "lxc"}],
        "reservations": [{"ids": 5, "for": "me"}],
    }
    if not path:
        agree(wrong)
        return
    inside = found
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = wrong
    agree(found)


@pytest.mark.parametrize(
    "path",
    [("strategy",), ("containers", 0, "name"), ("containers", 0, "volumes", 0, "path"), ("reservations", 0, "ids"),
     ("reservations", 0, "for"), ("engines", 0, "name")],
    ids=str,
)  # fmt: skip
def test_what_is_needed_is_needed_by_both(path: tuple[Any, ...]) -> None:
    found: Any = {
        "strategy": "shared",
        "containers": [{"name": "aa", "volumes": [{"path": "/b"}]}],
        "engines": [{"name": "lxc"}],
        "reservations": [{"ids": 5, "for": "me"}],
    }
    assert accepts(found)
    inside = found
    for key in path[:-1]:
        inside = inside[key]
    del inside[path[-1]]
    assert not accepts(found)
    assert "is missing" in loader_says(found)


def test_the_schema_is_one_and_every_word_of_it_means_something() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    used = set(re.findall(r'"#/\$defs/(\w+)"', schema()))
    assert used == set(SCHEMA["$defs"])
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_schema_of_the_config_says_of_each_key_what_that_of_plan_files_does() -> None:
    raw = (resources.files("usernsplan.formats") / "config.schema.json").read_text("utf-8")
    found = json.loads(raw)
    Draft202012Validator.check_schema(found)
    with pytest.raises(InvalidFileError) as caught:
        config.parse(b"- not a mapping", "f")
    keys = str(caught.value).partition("keys and values: ")[2].split(", ")
    assert set(found["properties"]) == set(keys)
    # A plan file has this key for each volume.
    own = {"method": SCHEMA["$defs"]["volume"]["oneOf"][1]["properties"]["method"]["enum"]}
    # Where the ledger is: that of a host, and no plan's.
    shared = [key for key in keys if key not in own and key != "ledger"]
    assert all(found["properties"][key] == SCHEMA["properties"][key] for key in shared)
    assert {key: found["properties"][key]["enum"] for key in own} == own
    assert set(found["$defs"]) == set(re.findall(r'"#/\$defs/(\w+)"', raw))
    assert all(found["$defs"][name] == SCHEMA["$defs"][name] for name in found["$defs"])
    validator = Draft202012Validator(found)
    place = "ledger: service=usernsplan"
    for text in ("", "~", "{}", "version: 1", "engines: [lxc]", "size: 5\npool: 5-6", place):
        config.parse(text.encode(), "f")
        assert validator.is_valid(yaml.safe_load(text)), text
    for text in ("[]", "containers: [web]", "version: 2", "size: x", "5", "ledger: 5"):
        with pytest.raises(InvalidFileError):
            config.parse(text.encode(), "f")
        assert not validator.is_valid(yaml.safe_load(text)), text


def test_the_schema_knows_the_keys_that_the_loader_knows() -> None:
    """The loader lists them where it misses one."""
    [top] = re.findall(r"the keys are (.*)", loader_says({"strategy": "shared", "?": 1}))
    assert set(SCHEMA["properties"]) == set(top.split(", "))
    for key, definition in (
        ("containers", "container"),
        ("engines", "engine"),
        ("reservations", "reservation"),
    ):
        [said] = [
            f
            for f in loader_says({"strategy": "shared", key: [{"?": 1}]}).split("\n")
            if "the keys are" in f
        ]
        known = SCHEMA["$defs"][definition]
        keys = known["properties"] if "properties" in known else known["oneOf"][1]["properties"]
        assert set(keys) == set(said.partition("the keys are ")[2].split(", "))


@pytest.mark.parametrize("path", ["examples/usernsplan.yaml", "README.md"])
def test_what_is_shown_to_people_is_right_by_the_schema(path: str) -> None:
    raw = (REPOSITORY / path).read_text()
    for block in re.findall(r"^```yaml\n(.*?)^```", raw, re.MULTILINE | re.DOTALL) or [raw]:
        # What names no containers is a config.yaml, which has a schema and a test of its own.
        if "containers:\n" in block:
            VALIDATOR.validate(yaml.safe_load(block))
            parse(block.encode(), "f")


def test_a_file_with_every_key_is_right_by_the_schema() -> None:
    VALIDATOR.validate(yaml.safe_load(WHOLE))


def test_plan_prints_it_without_a_file_or_a_host(tmp_path: Path) -> None:
    out, _ = here("plan", "--schema", "--root", tmp_path / "none")
    assert json.loads(out) == SCHEMA
    assert not (tmp_path / "none").exists()


def test_it_is_installed_with_the_package() -> None:
    assert (
        json.loads((resources.files("usernsplan.formats") / "spec.schema.json").read_text("utf-8"))
        == SCHEMA
    )
