"""Trees of any shape, with a network that loses, doubles and reorders: each leaf counts once everywhere, each command
acts once whichever ways it took, and after healing every build is ACTIVE or in ERROR with a reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st

from api_cell.rows import Phase, ServerRow
from cells.messages import DeleteServer, RebootServer, ResizeServer
from cells.names import SECOND
from compute_cell.rows import HostRow
from tests.support.embedded import SMALL, TINY, Tree, make_tree
from tests.support.invariants import validate, validate_quiet
from xenapi_host.simulator.worlds import HostShape

SMALL_HOST = HostShape(ram_mib=4096, cpu_objects=False)


@dataclass(frozen=True)
class Weather:
    """How bad the network is, and which cells are killed when (in quarter seconds)."""

    seed: int
    loss: float
    copies: float
    shuffle: float
    kills: tuple[tuple[int, int], ...]


@st.composite
def shapes(draw: st.DrawFn) -> Mapping[str, Sequence[str]]:
    """One to three API cells, up to two layers of regions, one to four leaves; every cell has one parent or more."""
    shape: dict[str, Sequence[str]] = {f"api{number}": () for number in range(draw(st.integers(1, 3)))}
    above = list(shape)
    for layer in range(draw(st.integers(0, 2))):
        names = [f"region{layer}{number}" for number in range(draw(st.integers(1, 3)))]
        for name in names:
            shape[name] = draw(st.lists(st.sampled_from(above), min_size=1, max_size=3, unique=True))
        above += names
    for number in range(draw(st.integers(1, 4))):
        shape[f"leaf{number}"] = draw(st.lists(st.sampled_from(above), min_size=1, max_size=3, unique=True))
    return shape


weathers = st.builds(
    Weather,
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.05, 0.2]),
    copies=st.sampled_from([0.0, 0.1, 0.3]),
    shuffle=st.sampled_from([0.0, 0.3]),
    kills=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 20)), max_size=2).map(tuple),
)


def reachable(shape: Mapping[str, Sequence[str]], cell: str) -> set[str]:
    below: set[str] = set()
    for name, above in shape.items():
        if cell in above:
            below |= {name} | reachable(shape, name)
    return below


def assert_totals(tree: Tree, shape: Mapping[str, Sequence[str]]) -> None:
    """Every cell knows exactly the leaves below it, and sums each once."""
    for name, cell in tree.house.cells.items():
        memory = cell.role.neighbourhood  # type: ignore[attr-defined]
        leaves = reachable(shape, name) & set(tree.pools)
        fresh = memory.roster.totals(reachable(shape, name), tree.clock(), memory.mute_after).fresh
        hosts = [host for leaf in leaves for host in tree.rows(leaf, HostRow)]
        assert (fresh.leaves, fresh.hosts) == (len(leaves), len(hosts)), name
        assert fresh.free_ram_mib == sum(host.free_ram_mib for host in hosts), name
        assert fresh.total_vcpus == sum(host.vcpus for host in hosts), name


def come_to_rest(tree: Tree) -> None:
    for name in tree.configs:
        if name not in tree.house.cells:
            tree.restart(name)
    tree.network.heal()
    for _ in range(20):
        tree.run(10, step=1.0)
        quiet = all(cell.node.quiet for cell in tree.house.cells.values())
        rows = [row for api in tree.apis for row in tree.rows(api, ServerRow)]
        if quiet and not any(row.phase in (Phase.PLACING, Phase.OFFERED, Phase.DELETING) for row in rows):
            break
    tree.run(12, step=1.0)  # a digest, and what it finds


def play(shape: Mapping[str, Sequence[str]], weather: Weather) -> None:
    tree = make_tree(shape, seed=str(weather.seed), hosts=1, host=SMALL_HOST)
    try:
        tree.run(10, step=1.0)
        assert_totals(tree, shape)
        for steps in tree.steps.values():
            steps.counting = True
        network = tree.network
        network.random.seed(weather.seed)
        network.loss, network.copies, network.shuffle = weather.loss, weather.copies, weather.shuffle
        built = [
            (api, tree.build(api, f"{api}-{number}", SMALL if number else TINY))
            for api in tree.apis
            for number in range(3)
        ]
        names = sorted(tree.configs)
        for quarter in range(28):
            for at, which in weather.kills:
                name = names[which % len(names)]
                if quarter == at and name in tree.house.cells:
                    tree.crash(name)
                if quarter == at + 4 and name not in tree.house.cells:
                    tree.restart(name)
            tree.run(0.25)
            validate(tree)
        come_to_rest(tree)
        validate_quiet(tree)
        alive = []
        for api, server in built:
            row = tree.server(api, server)
            assert row.status in ("ACTIVE", "ERROR")
            assert row.status == "ACTIVE" or row.fault
            if row.phase is Phase.GRANTED and row.status == "ACTIVE":
                alive.append((api, server))
        network.loss, network.copies, network.shuffle = weather.loss, weather.copies, weather.shuffle
        for number, (api, server) in enumerate(alive):
            match number % 3:
                case 0:
                    tree.ask(api, server, RebootServer(hard=True))
                case 1:
                    tree.ask(api, server, DeleteServer(build_deadline=tree.clock() + 600 * SECOND))
                case 2:
                    tree.ask(api, server, ResizeServer(flavor=SMALL))
        tree.run(5)
        come_to_rest(tree)
        validate_quiet(tree)
        calls = [call for steps in tree.steps.values() for call in steps.done]
        assert calls.count("Async.VM.hard_reboot") == len(alive[::3])
        assert all(tree.find_server(api, server) is None for api, server in alive[1::3])
        assert_totals(tree, shape)
    finally:
        tree.close()


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Stage.explicit, Stage.generate],  # one tree takes a second: shrinking would take minutes
    suppress_health_check=list(HealthCheck),
)
@given(shape=shapes(), weather=weathers)
def test_walk_in_any_tree_and_any_weather_ends_well(shape: Mapping[str, Sequence[str]], weather: Weather) -> None:
    play(shape, weather)
