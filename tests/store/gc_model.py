"""The protocol of gc (docs/dev/gc.md) as a model, and an explorer that tries every interleaving with a death anywhere.

One step is what nobody can look into or interrupt: a write transaction, a look into a snapshot, a journal record, the
death of a process. A death within a transaction is a death before it. What a writer saw may be old when it acts on it.
Writers and gc begin again for ever, so each meets the others at every point of their work, and what they left.

Objects are a few letters: b refers to a, c and d to b; a row beside b, the times of a layer, leads to t. A set of
objects is a bit mask. Numbers n and k are not in the model, only what they decide: whether a row is condemned, and
whether a gc has published since somebody looked. So a finite number of worlds is all there is.

Each rule of the protocol is a field of Rules; a mutant is the protocol without one of them.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, reduce
from operator import or_
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
Objects = int

NOTHING: Objects = 0
A: Objects = 1
B: Objects = 2
C: Objects = 4
D: Objects = 8
T: Objects = 16
LETTERS = {A: "a", B: "b", C: "c", D: "d", T: "t"}
CHILDREN = {A: NOTHING, B: A, C: B, D: B, T: NOTHING}
LAYER = B  # the object that may have times

HEAD = 0  # the ref that several move; the ones after it belong to a writer each


@dataclass(frozen=True)
class Rules:
    """Who keeps all of these loses nothing."""

    # every writer
    test_the_target: bool = True  # who moves a ref onto an old id tests its row in that transaction
    look_again: bool = True  # what was found before the last gc published is looked up again
    condemned_is_absent: bool = True  # for look-ups, puts, hits and tests alike
    fresh_number: bool = True  # a put over a condemned row makes a new row, with a new number
    number_from_a_counter: bool = True  # not one more than the last row's, which may have been deleted
    rows_go_along: bool = True  # the row that leads from a layer to its times goes with the layer's row
    new_serial: bool = True  # a ref that moves gets a new serial, as a new one does

    # sessions
    children_first: bool = True  # a new node refers to what its session holds or what is live in its transaction
    session_row: bool = True  # each transaction of a session tests that its row is still there
    hold_puts: bool = True  # what a transaction of a session puts is held by that same transaction
    hold_hits: bool = True  # so is what it finds there

    # workspaces with a journal
    needs_first: bool = True  # first the live row lists it, then a journal record refers to it
    needs_in_the_row: bool = True  # of the workspace, not with a session
    forks_take_needs: bool = True  # a fork that waits for the journal's layer lists what that journal needs
    hold_what_is_open: bool = True  # the move of a head holds what open files still use of the old one

    # gc
    operations_are_roots: bool = True  # within their grace time
    lock: bool = True  # the row of a session whose lock is held stays
    min_age: bool = True  # so does the row of a session that wrote a short time ago
    walk_holds: bool = True  # held nodes are not only marked
    serial_first: bool = True  # the last serial is read before the roots are
    roots_again: bool = True  # T2 walks the roots that have a newer serial
    same_number: bool = True  # T2 gives up if another gc has published since the marking began
    condemn_the_young: bool = True  # T2 condemns what it has not reached, however young
    test_the_row: bool = True  # each delete of the sweep tests again that the row is condemned
    sweep_all: bool = True  # the sweep deletes what earlier gcs condemned, too


WHOLE = Rules()


class Seen(StrEnum):
    """What a writer's last look-up said."""

    NOTHING = "nothing"
    ABSENT = "absent"
    LIVE = "live"
    LIVE_BEFORE = "live, before k moved"


class Phase(StrEnum):
    IDLE = "idle"
    ROOTS = "reads roots"
    MARK = "marks"
    SWEEP = "sweeps"


class Writer(NamedTuple):
    """A process, and what the store has of its session."""

    alive: bool = True
    at: int = 0  # the next line of its script
    seen: Seen = Seen.NOTHING
    acknowledged: Objects = NOTHING  # what its session was told is stored
    row: bool = False  # the row of its session
    held: Objects = NOTHING  # the holds under that row
    young: bool = False  # its last write is younger than min_age


class Daemon(NamedTuple):
    """A mounted workspace, the head of which is HEAD."""

    needs: Objects = NOTHING  # listed in live rows
    journal: Objects = NOTHING  # what unsealed records refer to beside their base; outlives the daemon
    fork_waits: bool = False  # for the layer that the journal will be
    open: Objects = NOTHING  # what the kernel's inodes use
    held: Objects = NOTHING  # by the daemon's session


class Gc(NamedTuple):
    """The memory of a gc process."""

    phase: Phase = Phase.IDLE
    tables: int = 0  # ROOTS: how many of the tables with roots it has read
    waiting: Objects = NOTHING  # ROOTS, MARK: marked, not yet read. SWEEP: not yet deleted
    marked: Objects = NOTHING
    newer: Objects = NOTHING  # targets of rows that got a serial after the last one it knows
    spared: Objects = NOTHING  # put since it began (only if the young are not condemned)
    overtaken: bool = False  # another gc has published since it began


class World(NamedTuple):
    live: Objects  # rows that are there, marked or too new to be judged
    condemned: Objects  # rows that are there, and left out by the marks
    refs: tuple[Objects, ...]  # HEAD, then one of each writer
    operations: Objects = NOTHING  # what the operations within the grace time name
    times: Objects = NOTHING  # where the times row of LAYER leads
    last_row_gone: bool = False  # the row with the highest number (only if numbers don't come from a counter)
    writers: tuple[Writer, ...] = ()
    daemon: Daemon = Daemon()
    gcs: tuple[Gc, ...] = (Gc(),)


Step = tuple[str, World]
Steps = Iterator[Step]


class Line(NamedTuple):
    """One step of a script: what Writers do, with which object, and what must be true."""

    do: str
    target: Objects = NOTHING
    in_session: bool = False  # its session must be there
    if_found: bool = False  # the last look-up must have found what it looked for
    tests: bool = False  # the transaction itself looks for the object, whatever k is


def look(target: Objects) -> Line:
    return Line("look", target)


def put(target: Objects) -> tuple[Line, Line]:
    """With the bytes at hand: what is not there is made."""
    return look(target), Line("put", target, in_session=True)


def hit(target: Objects) -> tuple[Line, Line]:
    """By its id alone."""
    return look(target), Line("put", target, in_session=True, if_found=True)


def publish(target: Objects) -> Line:
    return Line("publish", target, in_session=True)


BEGIN = Line("begin")
IMPORT = (BEGIN, *put(A), *put(B), publish(B))
SMALL_IMPORT = (BEGIN, *put(B), publish(B))  # a is there, or it is told so
PARENT_FIRST = (BEGIN, *put(B), *put(A), publish(B))
NODE_PUT = (BEGIN, *hit(B), *put(C), publish(C))
EDIT = (BEGIN, look(B), Line("put_over", C, in_session=True, if_found=True), publish(C))  # b is seen, not held
PRINT = (BEGIN, *put(A), *put(B), Line("keep", in_session=True))  # for somebody to refer to, soon
COMMIT = (look(B), Line("commit", C, if_found=True))  # in one transaction, without a session
COMMIT_BESIDE = (look(C), Line("commit", D, if_found=True))  # d refers to b, which hangs from the c that was seen
HIT = (look(C), Line("serve", C, if_found=True, tests=True))  # an action's result
SET_TIMES = (Line("set_times", T),)


@dataclass(frozen=True)
class Scenario:
    """Who is at work beside gc. Refs go at any time; what was live at first is `live`, and `head` is where HEAD is."""

    scripts: tuple[tuple[Line, ...], ...]
    live: Objects = A | B
    head: Objects = B
    remembered: tuple[Objects, ...] = (B,)  # where tag, undo and redo may move HEAD
    grace: bool = False  # operations are kept for a time; else for none
    min_age: bool = False  # sessions are young for a time; else for none
    locks_lie: bool = False  # a living session may be taken for a dead one
    mounted: bool = False
    gcs: int = 1


SCENARIOS = {
    "import, commit, hit and undo": Scenario((SMALL_IMPORT, COMMIT, HIT), remembered=(B, C), grace=True),
    "import and node put": Scenario((SMALL_IMPORT, NODE_PUT)),
    "two imports": Scenario((IMPORT, IMPORT)),
    "commit, hit and undo": Scenario((COMMIT, HIT), remembered=(B, C), grace=True),
    "commit and hit": Scenario((COMMIT, HIT), remembered=()),
    "commit beside what was seen": Scenario((COMMIT_BESIDE,), live=A | B | C, head=C, remembered=(C, D)),
    "edit, and tag what was left": Scenario((EDIT,), remembered=(B, C)),
    "parent first": Scenario((PARENT_FIRST,)),
    "print, then refer to it": Scenario((PRINT, COMMIT), min_age=True),
    "locks lie": Scenario((IMPORT,), locks_lie=True),
    "times": Scenario((IMPORT, SET_TIMES)),
    "mounted workspace": Scenario((COMMIT,), mounted=True),
    "two gcs": Scenario((SMALL_IMPORT,), gcs=2),
}


@cache
def closure(roots: Objects, times: Objects = NOTHING, stop: Objects = NOTHING) -> Objects:
    """What is reached from these, but not through `stop`."""
    found, waiting = NOTHING, roots & ~stop
    while waiting:
        found |= waiting
        waiting = reduce(or_, (children(each, times) for each in members(waiting))) & ~found & ~stop
    return found


def children(each: Objects, times: Objects) -> Objects:
    return CHILDREN[each] | (times if each == LAYER else NOTHING)


@cache
def members(objects: Objects) -> tuple[Objects, ...]:
    return tuple(each for each in LETTERS if each & objects)


@cache
def name(objects: Objects) -> str:
    return " ".join(LETTERS[each] for each in members(objects)) or "nothing"


def replaced(items: tuple[Item, ...], index: int, item: Item) -> tuple[Item, ...]:
    return items[:index] + (item,) + items[index + 1 :]


def sessions_hold(world: World) -> Objects:
    return reduce(or_, (each.held for each in world.writers), world.daemon.held)


class Store:
    """What a transaction may do to the tables, whoever it is of."""

    def __init__(self, scenario: Scenario, rules: Rules) -> None:
        self.scenario = scenario
        self.rules = rules

    def there(self, world: World) -> Objects:
        return world.live if self.rules.condemned_is_absent else world.live | world.condemned

    def put(self, world: World, target: Objects) -> World:
        if self.there(world) & target or (world.condemned & target and not self.rules.fresh_number):
            return world
        world = self.delete(world, target)
        if world.last_row_gone:  # the number that it gets was given out before, and condemned
            return world._replace(condemned=world.condemned | target, last_row_gone=False)
        if not self.rules.condemn_the_young:
            world = world._replace(gcs=tuple(gc._replace(spared=gc.spared | target) for gc in world.gcs))
        return world._replace(live=world.live | target)

    def delete(self, world: World, target: Objects) -> World:
        if not (world.live | world.condemned) & target:
            return world
        return world._replace(
            live=world.live & ~target,
            condemned=world.condemned & ~target,
            times=NOTHING if target == LAYER and self.rules.rows_go_along else world.times,
        )

    def move(self, world: World, slot: int, target: Objects) -> World:
        """A ref, with the operation that says so, and a hold on what open files use of what it leaves."""
        old = world.refs[slot]
        world = world._replace(refs=replaced(world.refs, slot, target))
        if not old or self.rules.new_serial:
            world = self.give_serial(world, target)
        if self.scenario.grace:
            world = self.give_serial(world._replace(operations=world.operations | old | target), old | target)
        if slot == HEAD and world.daemon.open and self.rules.hold_what_is_open:
            daemon = world.daemon._replace(held=world.daemon.held | world.daemon.open)
            world = self.give_serial(world._replace(daemon=daemon), daemon.held)
        return world

    def give_serial(self, world: World, targets: Objects) -> World:
        """To a new row that makes roots of these: every gc that has read the last serial will find it."""
        listening = (Phase.ROOTS, Phase.MARK) if self.rules.serial_first else (Phase.MARK,)
        for index, gc in enumerate(world.gcs):
            if gc.phase in listening and targets & ~gc.newer:
                gcs = replaced(world.gcs, index, gc._replace(newer=gc.newer | targets))
                world = world._replace(gcs=gcs)
        return world


Turn = tuple[str, World, Writer]


class Writers:
    """Each goes through its script, line by line, and begins again."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rules = store.rules
        self.scripts = store.scenario.scripts

    def steps(self, world: World) -> Steps:
        for index, me in enumerate(world.writers):
            for what, after, me_after in self.turns(world, index, me):
                yield f"writer {index + 1} {what}", after._replace(writers=replaced(after.writers, index, me_after))

    def turns(self, world: World, index: int, me: Writer) -> Iterator[Turn]:
        if me.young:
            yield "is no longer young", world, remains(me._replace(young=False))
        if me.alive:
            if me != Writer():
                yield "dies", world, stopped(me)
            yield self.next_line(world, index, me)

    def next_line(self, world: World, index: int, me: Writer) -> Turn:
        line = self.scripts[index][me.at]
        if line.in_session and not me.row and self.rules.session_row:
            return "is told that its session is lost", world, stopped(me)
        if line.tests and not self.store.there(world) & line.target and self.rules.test_the_target:
            return f"is told that {name(line.target)} is not there any more", world, stopped(me)
        if not line.tests and me.seen == Seen.LIVE_BEFORE and self.rules.look_again:
            return "sees that k has moved", world, me._replace(at=me.at - 1, seen=Seen.NOTHING)
        if line.if_found and me.seen == Seen.ABSENT:
            return "is told that what it names is not there", world, stopped(me)
        match line.do:
            case "look":
                return self.look(world, me, line.target)
            case "commit":
                return self.commit(world, line.target)
            case "serve":
                return self.serve(world, line.target)
            case "set_times":
                return self.set_times(world, me, line.target)
            case "begin":
                return "begins a session", world, me._replace(at=1, row=True, young=self.store.scenario.min_age)
            case "put":
                return self.put(world, me, line.target)
            case "put_over":
                return self.put(world, me._replace(seen=Seen.NOTHING), line.target)
            case "publish":
                return self.publish(world, index, line.target)
            case "keep":
                return "prints and ends", world, stopped(me._replace(young=self.store.scenario.min_age))
        raise ValueError(line.do)

    def look(self, world: World, me: Writer, target: Objects) -> Turn:
        """In a snapshot: what it says may be old when it is used."""
        seen = Seen.LIVE if self.store.there(world) & target else Seen.ABSENT
        return f"looks for {name(target)}: {seen}", world, me._replace(at=me.at + 1, seen=seen)

    def commit(self, world: World, target: Objects) -> Turn:
        return f"commits {name(target)}", self.store.move(self.store.put(world, target), HEAD, target), Writer()

    def serve(self, world: World, target: Objects) -> Turn:
        return f"puts the result {name(target)} in place", self.store.move(world, HEAD, target), Writer()

    def set_times(self, world: World, me: Writer, target: Objects) -> Turn:
        if not self.store.there(world) & LAYER:
            return "is told that the layer is not there", world, stopped(me)
        after = self.store.put(world, target)._replace(times=target)
        return f"sets the times of {name(LAYER)}", self.store.give_serial(after, target), Writer()

    def put(self, world: World, me: Writer, target: Objects) -> Turn:
        there = self.store.there(world)
        found = bool(there & target) or me.seen in (Seen.LIVE, Seen.LIVE_BEFORE)
        if not found and CHILDREN[target] & ~there & ~me.acknowledged and self.rules.children_first:
            return f"is told that what {name(target)} refers to is not there", world, stopped(me)
        after = world if found else self.store.put(world, target)
        me = me._replace(
            at=me.at + 1,
            seen=Seen.NOTHING,
            acknowledged=me.acknowledged | target,
            young=self.store.scenario.min_age,
        )
        if me.row and (self.rules.hold_hits if found else self.rules.hold_puts):
            me = me._replace(held=me.held | target)
            after = self.store.give_serial(after, target)
        return f"{'hits' if found else 'puts'} {name(target)}", after, me

    def publish(self, world: World, index: int, target: Objects) -> Turn:
        return f"publishes {name(target)}", self.store.move(world, HEAD + 1 + index, target), Writer()


def stopped(writer: Writer) -> Writer:
    return remains(writer._replace(alive=False))


def remains(writer: Writer) -> Writer:
    """What is left of a writer. When nothing is, another one takes the place of a dead one."""
    if writer.alive:
        return writer
    if not writer.row and not writer.young:
        return Writer()
    return writer._replace(at=0, seen=Seen.NOTHING, acknowledged=writer.acknowledged if writer.young else NOTHING)


class Others:
    """Who moves refs without having put anything: tag, undo, redo; and time, which ends what can be undone."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def steps(self, world: World) -> Steps:
        there = self.store.there(world)
        known = there if self.store.rules.test_the_target else world.live | world.condemned
        for target in self.store.scenario.remembered:
            if target & known and world.refs[HEAD] != target:
                yield f"undo or tag: the head is set to {name(target)}", self.store.move(world, HEAD, target)
        for slot, target in enumerate(world.refs):
            if target:
                yield f"a ref to {name(target)} goes", self.store.move(world, slot, NOTHING)
        for each in members(world.operations):
            yield f"the grace time of {name(each)} ends", world._replace(operations=world.operations & ~each)


class Mount:
    """The daemon of a workspace, the journal of which refers to b; sealed, that is a layer c."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rules = store.rules

    def steps(self, world: World) -> Steps:
        if self.store.scenario.mounted:
            for steps in (self.journal(world), self.fork_or_seal(world), self.files(world)):
                for what, after in steps:
                    yield f"daemon: {what}", after

    def journal(self, world: World) -> Steps:
        me, first = world.daemon, self.rules.needs_first
        there = bool(self.store.there(world) & B)
        if not me.needs and there and (first or me.journal):
            listed = world._replace(daemon=me._replace(needs=B))
            yield "the live row lists b", self.store.give_serial(listed, B)
        if not me.journal and (me.needs if first else there):
            yield "a journal record refers to b", world._replace(daemon=me._replace(journal=B))

    def fork_or_seal(self, world: World) -> Steps:
        me = world.daemon
        if not me.journal:
            return
        if me.needs:
            sealed = world._replace(daemon=me._replace(needs=NOTHING, journal=NOTHING, fork_waits=False))
            yield "seals c and moves the head to it", self.store.move(self.store.put(sealed, C), HEAD, C)
        if me.fork_waits and not self.rules.forks_take_needs:
            yield "the workspace is removed, its list too", world._replace(daemon=me._replace(needs=NOTHING))
        elif not me.fork_waits:
            yield "a fork waits for the layer", world._replace(daemon=me._replace(fork_waits=True))
            removed = me._replace(needs=NOTHING, journal=NOTHING)
            yield "the workspace is removed", world._replace(daemon=removed)

    def files(self, world: World) -> Steps:
        me = world.daemon
        if world.refs[HEAD] and not me.open and not me.held:
            yield "a program opens a file of the head", world._replace(daemon=me._replace(open=world.refs[HEAD]))
        if me.open:
            yield "the file is closed", world._replace(daemon=me._replace(open=NOTHING))
        elif me.held:
            yield "lets go of what was open", world._replace(daemon=me._replace(held=NOTHING))
        needs = me.needs if self.rules.needs_in_the_row else NOTHING
        if me.open or me.needs != needs:
            yield "dies", world._replace(daemon=me._replace(open=NOTHING, needs=needs))


class Collectors:
    """gc: drop ended sessions, read the roots table by table, mark, publish (T2), sweep."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rules = store.rules
        self.tables: list[Callable[[World], Objects]] = [lambda world: reduce(or_, world.refs) | world.daemon.needs]
        if store.scenario.grace and self.rules.operations_are_roots:
            self.tables.append(lambda world: world.operations)

    def steps(self, world: World) -> Steps:
        for index, me in enumerate(world.gcs):
            for what, after, me_after in self.turns(world, me):
                yield f"gc {index + 1}: {what}", after._replace(gcs=replaced(after.gcs, index, me_after))

    def turns(self, world: World, me: Gc) -> Iterator[tuple[str, World, Gc]]:
        """Its death comes last: without it, this is what gc does if nobody disturbs it."""
        match me.phase:
            case Phase.IDLE:
                yield from self.drop_ended_sessions(world, me)
                yield "remembers k and the last serial", world, Gc(Phase.ROOTS)
                return
            case Phase.ROOTS:
                yield self.read_roots(world, me)
            case Phase.MARK if me.waiting:
                yield self.read_object(world, me)
            case Phase.MARK if me.overtaken and self.rules.same_number:
                yield "T2: gives up, k has moved", world, Gc()
            case Phase.MARK:
                yield from self.publish_or_go_back(world, me)
            case Phase.SWEEP if me.waiting:
                for each in members(me.waiting):
                    yield self.delete(world, me, each)
            case Phase.SWEEP:
                yield "is done", world, Gc()
        yield "dies", world, Gc()

    def drop_ended_sessions(self, world: World, me: Gc) -> Iterator[tuple[str, World, Gc]]:
        for index, writer in enumerate(world.writers):
            locked = writer.alive and self.rules.lock and not self.store.scenario.locks_lie
            young = writer.young and self.rules.min_age
            if writer.row and not locked and not young:
                writers = replaced(world.writers, index, remains(writer._replace(row=False, held=NOTHING)))
                yield f"drops the session of writer {index + 1}", world._replace(writers=writers), me

    # marking

    def mark(self, me: Gc, walked: Objects, only_marked: Objects = NOTHING) -> Gc:
        new = walked & ~me.marked
        return me._replace(waiting=me.waiting | new, marked=me.marked | new | only_marked)

    def held(self, targets: Objects) -> tuple[Objects, Objects]:
        """Of what sessions hold: (what to walk, what to mark only)."""
        return (targets, NOTHING) if self.rules.walk_holds else (NOTHING, targets)

    def read_roots(self, world: World, me: Gc) -> tuple[str, World, Gc]:
        """One table a snapshot: what moves meanwhile from a later to an earlier one has a newer serial."""
        if me.tables < len(self.tables):
            me = self.mark(me, self.tables[me.tables](world))
            return "reads roots", world, me._replace(tables=me.tables + 1)
        me = self.mark(me, *self.held(sessions_hold(world)))
        return "reads holds", world, me._replace(phase=Phase.MARK, tables=0)

    def read_object(self, world: World, me: Gc) -> tuple[str, World, Gc]:
        each = members(me.waiting)[0]
        me = me._replace(waiting=me.waiting & ~each)
        return f"reads {name(each)}", world, self.mark(me, children(each, world.times))

    def newer_roots(self, world: World, me: Gc) -> tuple[Objects, Objects]:
        """(what to walk, what to mark only) of the roots that have come since the last serial."""
        roots = reduce(or_, (read(world) for read in self.tables), world.times) & me.newer
        walked, only_marked = self.held(sessions_hold(world) & me.newer)
        return roots | walked, only_marked

    def publish_or_go_back(self, world: World, me: Gc) -> Iterator[tuple[str, World, Gc]]:
        newer, only_marked = self.newer_roots(world, me) if self.rules.roots_again else (NOTHING, NOTHING)
        marked = me.marked | only_marked
        marked |= closure(newer, world.times, stop=marked)
        yield self.publish(world, me, marked | me.spared)
        if newer & ~me.marked:
            yield "T2: goes back to marking", world, self.mark(me._replace(newer=NOTHING), newer, only_marked)

    def publish(self, world: World, me: Gc, marked: Objects) -> tuple[str, World, Gc]:
        present = world.live | world.condemned
        condemned = present & ~marked
        swept = condemned if self.rules.sweep_all else condemned & world.live
        after = world._replace(
            live=present & marked,
            condemned=condemned,
            writers=tuple(
                each._replace(seen=Seen.LIVE_BEFORE) if each.seen == Seen.LIVE else each for each in world.writers
            ),
            gcs=tuple(gc._replace(overtaken=gc.phase in (Phase.ROOTS, Phase.MARK)) for gc in world.gcs),
        )
        return f"T2: condemns {name(condemned)}", after, Gc(Phase.SWEEP, waiting=swept)

    # sweeping

    def delete(self, world: World, me: Gc, each: Objects) -> tuple[str, World, Gc]:
        me = me._replace(waiting=me.waiting & ~each)
        if not world.condemned & each and self.rules.test_the_row:
            return f"{name(each)} is condemned no more", world, me
        after = self.store.delete(world, each)
        if not self.rules.number_from_a_counter and each > after.live | after.condemned:
            after = after._replace(last_row_gone=True)
        return f"deletes {name(each)}", after, me


class Protocol:
    """All who are at work, and what they are promised."""

    def __init__(self, scenario: Scenario, rules: Rules) -> None:
        self.scenario = scenario
        self.store = Store(scenario, rules)
        self.collectors = Collectors(self.store)
        self.actors = (Writers(self.store), Others(self.store), Mount(self.store), self.collectors)
        self._leftovers: dict[World, Objects] = {}

    def start(self) -> World:
        scenario = self.scenario
        writers = len(scenario.scripts)
        return World(
            live=scenario.live,
            condemned=NOTHING,
            refs=(scenario.head,) + (NOTHING,) * writers,
            writers=(Writer(),) * writers,
            gcs=(Gc(),) * scenario.gcs,
        )

    def steps(self, world: World) -> Steps:
        for actor in self.actors:
            yield from actor.steps(world)

    # promises

    def complaint(self, world: World) -> str | None:
        """What is lost in this world, or stays for ever."""
        there = self.store.there(world)
        roots = self.needed(world)
        if missing := closure(roots, world.times) & ~there:
            return f"{name(missing)} is needed and not there"
        if missing := closure(self.acknowledged(world), world.times) & ~there:
            return f"{name(missing)} was acknowledged to a session and is not there"
        if left := self.leftovers(world):
            return f"{name(left)} is garbage and stays, whatever gc does"
        return None

    def broken_invariant(self, world: World) -> str | None:
        """That from which the promises follow."""
        if self.needed(world) & ~world.live:
            return "a root is not live"
        if closure(world.live, world.times) & ~world.live:
            return "what is live refers to what is not live"
        if any(gc.waiting & ~world.live for gc in world.gcs if gc.phase != Phase.SWEEP and not gc.overtaken):
            return "gc is about to read what is not there, and would call it damage"
        return None

    def needed(self, world: World) -> Objects:
        daemon = world.daemon
        beside = world.operations | daemon.needs | daemon.journal | daemon.open
        return reduce(or_, world.refs) | beside | sessions_hold(world)

    def acknowledged(self, world: World) -> Objects:
        """What living sessions, and those that lived until lately, count on."""
        return reduce(
            or_,
            (
                each.acknowledged
                for each in world.writers
                if each.row or each.young or (each.alive and not self.scenario.locks_lie)
            ),
            NOTHING,
        )

    def leftovers(self, world: World) -> Objects:
        """What would be there, reached by nothing, after one gc that nobody disturbs; asked between two gcs."""
        if any(gc != Gc() for gc in world.gcs):
            return NOTHING
        rested = world._replace(writers=tuple(each._replace(at=0, seen=Seen.NOTHING) for each in world.writers))
        if rested not in self._leftovers:
            after = self.alone(rested)
            reached = closure(self.needed(after), after.times)
            self._leftovers[rested] = (after.live | after.condemned) & ~reached
        return self._leftovers[rested]

    def alone(self, world: World) -> World:
        begun = False
        while not begun or world.gcs[0] != Gc():
            _, world = next(self.collectors.steps(world))
            begun = begun or world.gcs[0] != Gc()
        return world


@dataclass(frozen=True)
class Exploration:
    """How many worlds there are, and the shortest way to one that breaks a promise, if there is one."""

    worlds: int
    steps: int
    complaint: str | None = None
    way: tuple[str, ...] = ()
    taken: frozenset[str] = field(default=frozenset(), repr=False)  # all that happened on the ways tried

    def __str__(self) -> str:
        return "\n".join([f"{self.worlds} worlds, {self.steps} steps", *self.way, f"=> {self.complaint or 'holds'}"])


def explore(scenario: Scenario, rules: Rules = WHOLE) -> Exploration:
    """Breadth first, until the first complaint. Of the whole protocol, the invariant is checked too."""
    protocol = Protocol(scenario, rules)
    start = protocol.start()
    came_from: dict[World, Step | None] = {start: None}
    waiting = deque([start])
    steps = 0
    taken = set()
    while waiting:
        world = waiting.popleft()
        for what, after in protocol.steps(world):
            steps += 1
            taken.add(what)
            if after in came_from:
                continue
            came_from[after] = (what, world)
            waiting.append(after)
            complaint = protocol.complaint(after) or (protocol.broken_invariant(after) if rules == WHOLE else None)
            if complaint:
                return Exploration(len(came_from), steps, complaint, way_to(after, came_from), frozenset(taken))
    return Exploration(len(came_from), steps, taken=frozenset(taken))


def way_to(world: World, came_from: dict[World, Step | None]) -> tuple[str, ...]:
    way: list[str] = []
    while step := came_from[world]:
        what, world = step
        way.append(what)
    return tuple(reversed(way))
