"""Whatever happens, in whatever order: what must hold of a live scheduler on a real store."""

import asyncio
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlaas.errors import Conflict, MlaasError
from mlaas.scheduler.live.lifecycle import Effect, State
from mlaas.scheduler.live.types import Outcome
from mlaas.scheduler.requests.spec import Retries
from mlaas.store.workloads import WorkloadRepository
from tests.fakes.live_scheduler import RUN, Bench, Crash, job, node

ids = st.integers(0, 30)
asks = st.fixed_dictionaries(
    {
        "gpus": st.sampled_from((0.5, 1.0, 2.0, 4.0)),
        "workers": st.integers(1, 2),
        "more": st.sampled_from((0, 0, 2)),
        "priority": st.sampled_from(("low", "normal", "high")),
        "has_command": st.sampled_from((True, True, False)),
        "retries": st.integers(0, 1),
        "depends_on": st.lists(ids, max_size=1),
        "estimate_s": st.sampled_from((None, 10.0, 1e4)),
    }
)


class LiveScheduler(RuleBasedStateMachine):
    @initialize(some=st.lists(asks, max_size=5))
    def begin(self, some):
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="mlaas-live-"))
        self.bench = Bench(self.folder, nodes=2, gpus=4, poll_s=0.0)
        self.audit = WorkloadRepository(self.bench.store._engine)
        self.accepted = []
        self.final = {}
        self.dead_holders = set()
        self.nodes = 2
        self.run(self.bench.start())
        self.submit(some)

    def run(self, work):
        return self.loop.run_until_complete(work)

    def teardown(self):
        if not hasattr(self, "loop"):
            return
        try:
            self.finish_everything()
        finally:
            self.run(self.bench.bury())
            self.run(self.loop.shutdown_default_executor())
            self.loop.close()
            self.bench.store._engine.dispose()
            shutil.rmtree(self.folder)

    def finish_everything(self):
        """Once all faults are gone, everything that was accepted comes to an end."""
        cluster, store = self.bench.cluster, self.bench.store
        cluster.is_down = store.is_down = store.loses_answers = False
        cluster.refusals = 0
        for number in range(3):
            cluster.nodes[f"last{number}"] = node(f"last{number}")
        self.bench.time.advance(10.0)
        self.crash_and_restart(0)
        for _ in range(60):
            if all(State(record.state).is_final for record in self.audit.list()):
                break
            for lease_id in list(cluster.running):
                cluster.end(lease_id, 0)
            for record in self.audit.list():
                if record.spec.get("command") is None and record.state in ("running", "yielding"):
                    self.run(self.bench.service.give_back(f"{record.id}.{record.attempt}", Outcome.FINISHED))
            self.heartbeats()
            self.bench.time.advance(20.0)
            self.run(self.bench.turn())
        left = [(record.id, record.state, record.reason) for record in self.audit.list()]
        assert all(State(state).is_final for _, state, _ in left), left
        self.run(self.bench.after(5.0))
        assert not cluster.groups
        assert not cluster.commands
        self.nothing_is_lost_or_done_twice()

    @rule(some=st.lists(asks, min_size=1, max_size=4))
    def submit(self, some):
        for ask in some:
            self.submit_one(**ask)
        self.turn()

    def submit_one(self, *, gpus, workers, more, priority, has_command, retries, depends_on, estimate_s):
        spec = job(
            gpus=gpus, workers=workers, most=workers + more, priority_class=priority, min_runtime_s=0.0,
            command=RUN if has_command else None, retries=Retries(max_retries=retries), estimate_s=estimate_s,
            depends_on=tuple({self.accepted[each] for each in depends_on if each < len(self.accepted)}),
            yield_grace_s=30.0, restart_cost_s=2.0,
        )  # fmt: skip
        submission_id = f"w{len(self.accepted)}"
        try:
            self.run(self.bench.service.submit(spec, tenant="ann", submission_id=submission_id))
        except MlaasError:
            # With its answer lost a submission may be there, and then it has to be carried out as well.
            if not self.audit.list_submission(submission_id):
                return
        self.accepted.append(submission_id)

    @precondition(lambda self: self.accepted)
    @rule(which=ids)
    def cancel(self, which):
        self.call(self.bench.service.cancel(self.accepted[which % len(self.accepted)], tenant="ann"))

    @precondition(lambda self: self.bench.cluster.running)
    @rule(which=ids, exit_code=st.sampled_from((0, 0, 1, -15)))
    def command_ends(self, which, exit_code):
        running = sorted(self.bench.cluster.running)
        self.bench.cluster.end(running[which % len(running)], exit_code)

    @rule(which=ids, outcome=st.sampled_from(Outcome))
    def holder_gives_back(self, which, outcome):
        if held := self.held():
            record = held[which % len(held)]
            self.call(self.bench.service.give_back(f"{record.id}.{record.attempt}", outcome))

    @rule(which=ids)
    def holder_dies(self, which):
        if held := self.held():
            self.dead_holders.add(held[which % len(held)].id)

    @rule(seconds=st.sampled_from((1.0, 5.0, 12.0, 40.0)))
    def time_passes(self, seconds):
        self.bench.time.advance(seconds)
        self.heartbeats()
        self.turn()

    @rule()
    def turn(self):
        self.heartbeats()
        self.run(self.bench.turn())

    @rule(jump_s=st.sampled_from((-3600.0, 3600.0)))
    def clock_jumps(self, jump_s):
        self.bench.time.wall_s += jump_s

    @rule()
    def node_comes(self):
        self.nodes += 1
        self.bench.cluster.nodes[f"n{self.nodes}"] = node(f"n{self.nodes}")

    @precondition(lambda self: self.bench.cluster.nodes)
    @rule(which=ids)
    def node_is_lost(self, which):
        names = sorted(self.bench.cluster.nodes)
        self.bench.cluster.lose_node(names[which % len(names)])

    @rule(
        fault=st.sampled_from(("refusals", "cluster", "removals", "starts", "store", "answers")),
        some=st.lists(asks, max_size=2),
        which=ids,
    )
    def something_fails_for_a_while(self, fault, some, which):
        cluster, store = self.bench.cluster, self.bench.store
        cluster.refusals = 2 * (fault == "refusals")
        cluster.is_down, store.is_down, store.loses_answers = fault == "cluster", fault == "store", fault == "answers"
        cluster.unanswered = {"removals": {"remove_group", "stop_command"}, "starts": {"start_command"}}.get(
            fault, set()
        )
        for ask in some:
            self.submit_one(**ask)
        if cluster.running:
            cluster.end(sorted(cluster.running)[which % len(cluster.running)], which % 2)
        for _ in range(which % 4):
            self.time_passes(3.0)
        cluster.refusals = 0
        cluster.unanswered = set()
        cluster.is_down = store.is_down = store.loses_answers = False

    @rule(skip=st.integers(0, 12))
    def crash_and_restart(self, skip):
        """The scheduler dies at some call, in the middle of whatever it does, and another one starts."""
        self.bench.crash_at("", skip=skip)
        for _ in range(3):
            if not self.bench.is_dead:
                self.run(self.bench.turn())
        self.run(self.bench.bury())
        self.restart()

    @rule()
    def a_second_scheduler_starts(self):
        """The first one lives on, and must not do harm."""
        first = self.bench.service
        if not self.restart():
            return
        self.bench.time.advance(3.0)
        groups, commands = dict(self.bench.cluster.groups), dict(self.bench.cluster.commands)

        async def go_on():
            await first.loop.look()
            first.roster.order("anything.1", Effect.END)
            with suppress(Conflict):
                await first.loop.turn()
            await first.loop.executor.settle()

        self.run(go_on())
        assert first.loop.writer.superseded is not None
        assert (groups, commands) == (self.bench.cluster.groups, self.bench.cluster.commands)

    @invariant()
    def nothing_is_over_committed(self):
        if not hasattr(self, "bench"):
            return
        for name, used in self.bench.cluster.used().items():
            if name in self.bench.cluster.nodes:
                capacity = self.bench.cluster.nodes[name].capacity.amounts()
                assert all(amount <= capacity[each] + 1e-6 for each, amount in used.items())
        assert (self.bench.service.roster.ledger.cluster.cells >= 0).all()

    @invariant()
    def nothing_is_lost_or_done_twice(self):
        if not hasattr(self, "bench"):
            return
        records = {record.id: record for record in self.audit.list()}
        assert set(self.accepted) <= records.keys()
        for record in records.values():
            assert record.reason
            if record.id in self.final:
                assert record.state == self.final[record.id]
            if State(record.state).is_final:
                self.final[record.id] = record.state
        started = [lease_id for lease_id, _, _ in self.bench.cluster.started]
        assert len(started) == len(set(started))
        for leases in (self.bench.cluster.groups, self.bench.cluster.running):
            owners = [lease_id.partition(".")[0] for lease_id in leases]
            assert len(owners) == len(set(owners)), sorted(leases)
        for lease_id, (gang, placement) in self.bench.cluster.groups.items():
            assert gang.min_workers <= placement.num_workers <= gang.max_workers, lease_id

    def restart(self):
        self.bench.service = self.bench.new_service()
        for _ in range(2):
            try:
                self.run(self.bench.service.start())
                return True
            except MlaasError:
                # Whoever starts it tries again until store and cluster are back.
                self.bench.cluster.is_down = self.bench.store.is_down = self.bench.store.loses_answers = False
                self.bench.service = self.bench.new_service()
        raise AssertionError("it does not start")

    def held(self):
        return [
            record
            for record in self.audit.list(states=("running", "yielding"))
            if record.spec.get("command") is None and record.id not in self.dead_holders
        ]

    def heartbeats(self):
        for record in self.audit.list(states=("pending", "starting", "running", "yielding")):
            if record.spec.get("command") is None and record.id not in self.dead_holders:
                self.call(self.bench.service.attach(record.id, tenant="ann", holder="pid 1"))

    def call(self, verb):
        try:
            return self.run(verb)
        except (MlaasError, Crash):
            return None


TestLiveScheduler = LiveScheduler.TestCase
TestLiveScheduler.settings = settings(
    max_examples=20, stateful_step_count=25, suppress_health_check=list(HealthCheck), print_blob=True
)
