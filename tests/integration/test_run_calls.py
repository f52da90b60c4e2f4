"""Calls from anywhere at any time: several threads, and a signal handler in the midst of a call of its own thread."""

from pathlib import Path

from pilothouse.cli.brokers import free_port
from pilothouse.events.codec import decode
from pilothouse.events.telemetry import RunEnded, StageChanged, StepBatch, TelemetryGap
from pilothouse.producers.delivery.spool import read_folder
from pilothouse.tests.training_script import Script

CALLS = """
import faulthandler, itertools, signal, sys, threading, time
import pilothouse
faulthandler.dump_traceback_later(40, exit=True)  # a call that waits for itself waits for ever
sys.setswitchinterval(1e-5)
run = pilothouse.start_run("calls")
raised, logged, bad, stages, handled, lines = [], [], [], [], [], []
steps = itertools.count()

def good(): step = next(steps); run.log(step, loss=1.0); logged.append(step)
def wrong(): run.log(0, loss="bad"); bad.append(0)
def evaluate(): run.stage("evaluate", 1); stages.append(0)
def train(): run.stage("train", 1); stages.append(0)
def evaluated(): run.evaluated(1, loss=1.0)
def fact(): run.report_fact("data_freshness", age_hours=1.0)
def back(): run.begin_attempt("rollback", 0)
CALLS = (good, wrong, evaluate, train, evaluated, fact, back, run.counts)
turn = itertools.cycle(CALLS)

def one(call):
    try:
        call()
    except Exception as error:
        raised.append(repr(error))

def handle(*_):
    one(next(turn))
    handled.append(0)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)

def work(until):
    while time.monotonic() < until:
        for call in CALLS:
            one(call)

# Where a handler may come: before each line of a call, and in the midst of some. It calls the same, and another.
MIDST = ("timings.py", "bad_calls.py", "wake.py")

def at_each_line(frame, event, arg):
    if "pydantic" in frame.f_code.co_filename:
        return None
    frame.f_trace_opcodes = frame.f_code.co_filename.endswith(MIDST)
    if event in ("line", "opcode"):
        lines.append(0)
        sys.settrace(None)
        one(outer)
        one(next(turn))
        sys.settrace(at_each_line)
    return at_each_line

def interrupted(call):
    global outer
    outer = call
    sys.settrace(at_each_line)
    one(call)
    sys.settrace(None)

for call in CALLS:
    interrupted(call)

# As it comes: threads and real signals.
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001)
until = time.monotonic() + 0.5
thread = threading.Thread(target=work, args=(until,))
thread.start()
work(until)
thread.join()

signal.signal(signal.SIGALRM, lambda *_: run.close())
signal.setitimer(signal.ITIMER_REAL, 0.0001)
closers = [threading.Thread(target=run.close) for _ in range(3)]
for closer in closers: closer.start()
turn = itertools.repeat(run.close)
interrupted(run.close)
for closer in closers: closer.join()
accepted, *parts = run.counts()
print(raised[:3], len(lines) > 100, len(handled) > 10, accepted == sum(parts), len(logged), len(bad), len(stages))
"""


def test_no_call_from_threads_and_signal_handlers_raises_waits_for_itself_or_is_lost(tmp_path: Path) -> None:
    script = Script(f"127.0.0.1:{free_port()}", tmp_path)
    done = script.run(CALLS, PILOTHOUSE_CLOSE_SECONDS="5", PILOTHOUSE_RESOURCES_SECONDS="0")
    assert done.returncode == 0, done.stderr
    *said, logged, bad, staged = done.stdout.split()
    assert said == ["[]", "True", "True", "True"], done.stdout
    (folder,) = (tmp_path / "spool").glob("*/*")
    facts = [decode(record.headers, record.body) for record in read_folder(folder)]
    steps = [step for fact in facts if isinstance(fact, StepBatch) for step in fact.steps]
    assert sorted(steps) == list(range(int(logged))), "each row once"
    gaps = [fact for fact in facts if isinstance(fact, TelemetryGap)]
    assert not any(gap.dropped for gap in gaps)
    assert sum(gap.refused.get("metric_type", 0) for gap in gaps) == int(bad)
    stages = len([fact for fact in facts if isinstance(fact, StageChanged)])
    assert 0 < stages - int(staged) <= 3, "each that was told, and that the first row of each thread may imply"
    assert [type(fact) for fact in facts].count(RunEnded) == 1
    assert isinstance(facts[-1], RunEnded)
