# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The election, simulated: any order of rounds, delays, lost and late operations, crashes and resignations."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bzzz_setup.node.membership import Membership, eligible
from bzzz_setup.node.store import Entry, Unavailable

TTL = 6
NAMES = ("a", "b", "c")


class World:
    """An etcd that ends leases as early as it may, and a clock that moves while its operations are under way."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now = 100.0
        self.revision = 1
        self.leases: dict[int, float] = {}
        self.keys: dict[str, Entry] = {}
        self.late: list[tuple[float, Any]] = []
        self.faulty = True
        self.nodes: dict[str, Node] = {}
        self.busy: set[str] = set()
        self.claims = 0

    def check(self) -> None:
        primaries = [name for name, node in self.nodes.items() if node.membership.term is not None]
        assert len(primaries) <= 1, f"{primaries} are primary at {self.now}"
        self.claims += len(primaries)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for item in [each for each in self.late if each[0] <= self.now]:
            self.late.remove(item)
            item[1]()
        for lease in [each for each, until in self.leases.items() if until <= self.now]:
            self.end(lease)
        self.check()

    def end(self, lease: int) -> None:
        self.leases.pop(lease, None)
        for key in [each for each, entry in self.keys.items() if entry.lease == lease]:
            del self.keys[key]
            self.revision += 1

    def write(self, key: str, value: str, lease: int) -> None:
        if lease not in self.leases:
            raise Unavailable("requested lease not found")
        self.revision += 1
        created = self.keys[key].created if key in self.keys else self.revision
        self.keys[key] = Entry(value.encode(), created, self.revision, lease)

    def under_way(self, name: str) -> None:
        """Time passes while a message travels; other nodes go on meanwhile."""
        if not self.faulty:
            return
        self.advance(self.chance.choice([0] * 30 + [0.1, 0.5, 1.9, 2.1, 4.1, 6.5]))
        self.busy.add(name)
        for other in self.nodes:
            if other not in self.busy and self.chance.random() < 0.1:
                self.nodes[other].membership.step()
                self.check()
        self.busy.discard(name)


class Store:
    """One node's way to the world: messages are late, lost on the way there, or on the way back."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name

    def _do(self, operation: Any) -> Any:
        world = self.world
        world.under_way(self.name)
        fate = world.chance.random() if world.faulty else 1.0
        if fate < 0.02:
            raise Unavailable("lost")
        if fate < 0.06:
            world.late.append((world.now + world.chance.choice([0.5, 2, 5]), lambda: self._late(operation)))
            raise Unavailable("late")
        answer = operation()
        world.under_way(self.name)
        if fate < 0.08:
            raise Unavailable("answer lost")
        return answer

    @staticmethod
    def _late(operation: Any) -> None:
        try:
            operation()
        except Unavailable:
            pass

    def connect(self) -> None: ...

    def grant(self, seconds: int) -> int:
        def operation() -> int:
            lease = self.world.chance.getrandbits(62)
            self.world.leases[lease] = self.world.now + seconds
            return lease

        return int(self._do(operation))

    def keep_alive(self, lease: int) -> bool:
        def operation() -> bool:
            if lease in self.world.leases:
                self.world.leases[lease] = self.world.now + TTL
            return lease in self.world.leases

        return bool(self._do(operation))

    def revoke(self, lease: int) -> None:
        self._do(lambda: self.world.end(lease))

    def put(self, key: str, value: str, lease: int) -> None:
        self._do(lambda: self.world.write(key, value, lease))

    def create(self, key: str, value: str, lease: int) -> None:
        self._do(lambda: None if key in self.world.keys else self.world.write(key, value, lease))

    def delete(self, key: str, created: int) -> None:
        def operation() -> None:
            if key in self.world.keys and self.world.keys[key].created == created:
                del self.world.keys[key]
                self.world.revision += 1

        self._do(operation)

    def read(self) -> dict[str, Entry]:
        return dict(self._do(lambda: dict(self.world.keys)))


@dataclasses.dataclass
class Node:
    world: World
    name: str
    preferred: str | None
    healthy: bool = True

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        store = Store(self.world, self.name)
        self.membership = Membership(store, self.name, TTL, self.preferred, self.record, lambda: self.world.now)

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "roles": ["coordinator"], "healthy": self.healthy}


def run(chance: random.Random, preferred: str | None, rounds: int) -> World:
    world = World(chance)
    world.nodes.update({name: Node(world, name, preferred) for name in NAMES})
    for _ in range(rounds):
        node = world.nodes[chance.choice(NAMES)]
        deed = chance.random()
        if deed < 0.05:
            node.restart()
        elif deed < 0.08:
            node.membership.stop()
            world.check()
            node.restart()
        elif deed < 0.18:
            node.healthy = not node.healthy
        else:
            node.membership.step()
        world.check()
        world.advance(chance.choice([0, 0.2, 0.5, 1.0, 2.0]))
    return world


@pytest.mark.requirement("8.1.1", part="simulated")
@pytest.mark.requirement("8.4.3", part="simulated")
@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=True), st.sampled_from([None, "a", "absent"]))
def test_there_are_never_two_primaries_and_soon_one_when_faults_end(chance: random.Random, preferred: str | None) -> None:
    world = run(chance, preferred, 80)
    world.faulty = False
    world.late.clear()
    for node in world.nodes.values():
        node.healthy = True
    for _ in range(2 * TTL):
        for node in world.nodes.values():
            node.membership.step()
            world.check()
        world.advance(1.0)
    primaries = [name for name, node in world.nodes.items() if node.membership.term is not None]
    assert len(primaries) == 1
    if preferred in NAMES:
        assert primaries == [preferred]
    for node in world.nodes.values():
        assert node.membership.reason is None
        assert node.membership.view and node.membership.view.primary == primaries[0]


@pytest.mark.requirement("8.1.1", part="simulated")
def test_the_simulation_elects_at_all() -> None:
    assert sum(run(random.Random(seed), None, 80).claims > 0 for seed in range(20)) > 15


records = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.fixed_dictionaries({}, optional={"roles": st.lists(st.sampled_from(["coordinator", "worker"])), "healthy": st.booleans()}),
)


@pytest.mark.requirement("8.1.1", part="rule")
@given(records, st.sampled_from([None, "a", "z"]))
def test_who_is_eligible(members: dict[str, dict[str, Any]], preferred: str | None) -> None:
    coordinators = {name for name, record in members.items() if "coordinator" in record.get("roles", [])}
    healthy = {name for name in coordinators if members[name].get("healthy")}
    chosen = eligible(members, preferred)
    assert chosen <= coordinators
    assert bool(chosen) == bool(coordinators)
    if healthy:
        assert chosen <= healthy
    if preferred in healthy:
        assert chosen == {preferred}
    elif healthy:
        assert chosen == healthy


@pytest.mark.requirement("8.1.2", part="own clock")
def test_a_claim_lapses_by_the_own_clock_before_the_lease_can_end() -> None:
    world = World(random.Random(1))
    world.faulty = False
    world.nodes["a"] = Node(world, "a", None)
    membership = world.nodes["a"].membership
    membership.step()
    assert membership.term is not None
    renewed = world.now
    (until,) = world.leases.values()
    while membership.term is not None:
        world.now += 0.1
    assert renewed + TTL / 2 < world.now < until - TTL / 4
    assert membership.reason is None, "a short silence is no reason to be unready"
    world.now = until
    assert membership.reason


@pytest.mark.requirement("8.4.3", part="late resignation")
def test_who_has_resigned_does_not_claim_that_term_again() -> None:
    world = World(random.Random(1))
    world.faulty = False
    world.nodes.update({name: Node(world, name, None) for name in ("a", "b")})
    a, b = world.nodes["a"], world.nodes["b"]
    a.membership.step()
    b.membership.step()
    assert a.membership.term is not None
    a.healthy = False
    delete = a.membership._store.delete

    def late(key: str, created: int) -> None:
        world.late.append((world.now + 2, lambda: delete(key, created)))
        raise Unavailable("late")

    a.membership._store.delete = late  # type: ignore[method-assign]
    a.membership.step()
    assert a.membership.term is None
    a.healthy = True
    a.membership.step()
    assert a.membership.term is None, "the deletion is still on its way"
    world.advance(2)
    b.membership.step()
    assert b.membership.term is not None
    world.check()
