"""One destination: who is next, and when it is left alone."""

from __future__ import annotations

from pillarbox.queue.lane import DOWN_AFTER, PROBE_TIME, Channel, Destination, Job, Lane, Limits, Line, Stage


def lane(each: int = 10, recipients: int = 1) -> Lane:
    return Lane(Destination(Channel.REMOTE, b"far.example"), Line(Limits(100, each, recipients)))


def job(lane: Lane, message: int, number: int = 0) -> Job:
    return Job(message, number, 0, 0, lane, False)


def order(lane: Lane) -> list[tuple[int, int]]:
    taken = []
    while lane.in_turn:
        lane.line.turns.popleft()
        taken += [(next_job.message, next_job.number) for next_job in lane.next()]
    return taken


def test_messages_take_turns_and_recipients_keep_their_order() -> None:
    far = lane()
    far.offer([job(far, 1, number) for number in range(3)])
    far.offer([job(far, 2, number) for number in range(2)])
    assert order(far) == [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2)]
    assert (far.running, far.line.running) == (5, 5)


def test_a_lane_stands_in_line_once_and_only_while_it_may_start_something() -> None:
    far = lane(each=2)
    for message in range(4):
        far.offer([job(far, message)])
    assert len(far.line.turns) == 1
    assert len(order(far)) == 2
    assert not far.line.turns
    far.ended(job(far, 0))
    far.take_turn()
    assert len(order(far)) == 1


def test_recipients_of_one_message_make_one_delivery_and_count_as_one_until_the_last_is_heard_of() -> None:
    far = lane(each=1, recipients=3)
    jobs = [job(far, 1, number) for number in range(4)]
    far.offer(list(jobs))
    assert order(far) == [(1, 0), (1, 1), (1, 2)]
    assert (far.running, far.line.running) == (1, 1)
    for ended in jobs[:2]:
        far.ended(ended)
        far.take_turn()
        assert order(far) == []
    far.ended(jobs[2])
    far.take_turn()
    assert order(far) == [(1, 3)]
    far.ended(jobs[3])
    assert (far.running, far.line.running) == (0, 0)


def test_what_is_withdrawn_does_not_start() -> None:
    far = lane()
    far.offer([job(far, 1, 0), job(far, 1, 1)])
    far.offer([job(far, 2)])
    far.withdraw({1})
    assert order(far) == [(2, 0)]


def test_pauses_double_up_to_an_hour_and_each_allows_one_probe() -> None:
    far = lane()
    now = 1000.0
    for _ in range(DOWN_AFTER - 1):
        assert not far.failed(job(far, 1), b"no answer", now)
        assert far.admits(job(far, 1), now)
    assert far.failed(job(far, 1), b"no answer", now)
    pauses = []
    for message in range(6):
        pauses.append(far.closed_until - now)
        assert not far.admits(job(far, 9), far.closed_until - 1)
        assert far.reopens(now) == far.closed_until + 1
        now = far.closed_until
        probe = job(far, message)
        assert far.admits(probe, now) and far.admits(probe, now)
        assert not far.admits(job(far, 9), now)
        assert far.reopens(now) == now + PROBE_TIME + 1
        assert far.failed(probe, b"no answer", now)
    assert pauses == [300, 600, 1200, 2400, 3600, 3600]
    far.answered()
    assert far.admits(job(far, 9), now) and far.failures == 0


def test_closing_hands_back_what_was_ready_in_its_order() -> None:
    far = lane()
    far.offer([job(far, 1, 0), job(far, 1, 1)])
    far.offer([job(far, 2)])
    assert [(kept.message, kept.number, kept.stage) for kept in far.close()] == [
        (1, 0, Stage.READY),
        (1, 1, Stage.READY),
        (2, 0, Stage.READY),
    ]
    assert order(far) == []


def test_a_lane_with_nothing_to_do_may_be_forgotten() -> None:
    far = lane()
    assert far.unused
    far.behind = (0, 0, 0)
    assert not far.unused
    far.behind, far.held = None, 1
    assert not far.unused
