"""The bounded queue: nobody waits, everything is sent in order or counted."""

import threading

from sidecar.otel.outlet import Outlet


class Counts(dict):
    def __call__(self, name, n):
        self[name] = self.get(name, 0) + n


def test_what_is_put_in_is_sent_in_order_in_batches_and_the_rest_at_the_end():
    sent, counts = [], Counts()

    def send(batch):
        sent.append(list(batch))
        return True

    outlet = Outlet("t", send, count=counts, size_max=100, batch_max=4, delay_seconds=60)
    for number in range(10):
        outlet.put(number)
    outlet.close(30)
    assert [number for batch in sent for number in batch] == list(range(10))
    assert max(map(len, sent)) == 4
    assert counts == {}


def test_a_collector_that_never_answers_is_never_waited_for_and_every_loss_is_counted():
    taken, free, counts = threading.Event(), threading.Event(), Counts()

    def send(_batch):
        taken.set()
        free.wait(60)
        return False

    outlet = Outlet("t", send, count=counts, size_max=3, batch_max=1, delay_seconds=0)
    outlet.put(0)
    assert taken.wait(30)
    for number in range(1, 11):
        outlet.put(number)
    assert counts == {"otel_dropped": 7}
    outlet.close(0.01)  # gives up
    free.set()
    outlet._thread.join(0.01)


def test_what_the_collector_refuses_or_breaks_on_is_counted_and_the_next_is_tried():
    answers, counts, done = iter([False, RuntimeError("x"), True]), Counts(), []

    def send(batch):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        done.extend(batch)
        return answer

    outlet = Outlet("t", send, count=counts, size_max=10, batch_max=1, delay_seconds=0)
    for number in range(3):
        outlet.put(number)
    outlet.close(30)
    assert counts == {"otel_failed": 2}
    assert done == [0, 2]
