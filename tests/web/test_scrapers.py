"""Who scrapes regularly, and who is still to be waited for."""

from exporter.web.scrapers import FORGOTTEN_AFTER, Scrapers


def test_nobody_is_waited_for_before_anybody_came() -> None:
    """Without a scraper there is nothing to wait for."""
    assert Scrapers().waiting_for(0.0) == set()


def test_a_single_visit_makes_no_scraper() -> None:
    """Somebody who looked once is not waited for."""
    scrapers = Scrapers()
    scrapers.answered("10.0.0.1", 1.0)
    assert scrapers.waiting_for(2.0) == set()


def test_a_regular_scraper_is_waited_for_until_it_saw_the_last_event() -> None:
    """A second answer makes a scraper; one whose snapshot was taken after the event ends the wait for it."""
    scrapers = Scrapers()
    scrapers.answered("10.0.0.1", 1.0)
    scrapers.answered("10.0.0.1", 16.0)
    assert scrapers.waiting_for(20.0) == {"10.0.0.1"}
    scrapers.answered("10.0.0.1", 20.1)
    assert scrapers.waiting_for(20.0) == set()


def test_a_snapshot_of_the_very_moment_may_lack_the_event() -> None:
    """Equal times do not tell which came first: the scraper is still waited for."""
    scrapers = Scrapers()
    scrapers.answered("10.0.0.1", 1.0)
    scrapers.answered("10.0.0.1", 20.0)
    assert scrapers.waiting_for(20.0) == {"10.0.0.1"}


def test_each_scraper_is_waited_for_on_its_own() -> None:
    """One scraper's answer does not end the wait for another."""
    scrapers = Scrapers()
    for at in (1.0, 16.0):
        scrapers.answered("10.0.0.1", at)
        scrapers.answered("10.0.0.2", at)
    scrapers.answered("10.0.0.1", 21.0)
    assert scrapers.waiting_for(20.0) == {"10.0.0.2"}


def test_a_slow_answer_does_not_take_back_a_newer_one() -> None:
    """Of two overlapping answers the newer snapshot counts, whichever ends last."""
    scrapers = Scrapers()
    scrapers.answered("10.0.0.1", 21.0)
    scrapers.answered("10.0.0.1", 19.0)
    assert scrapers.waiting_for(20.0) == set()


def test_a_scraper_that_stopped_coming_is_taken_for_gone() -> None:
    """Nobody waits for a Prometheus that was switched off long before the shutdown."""
    scrapers = Scrapers()
    scrapers.answered("10.0.0.1", 1.0)
    scrapers.answered("10.0.0.1", 16.0)
    assert scrapers.waiting_for(16.0 + FORGOTTEN_AFTER) == {"10.0.0.1"}
    assert scrapers.waiting_for(16.1 + FORGOTTEN_AFTER) == set()


def test_passers_by_do_not_push_out_regular_scrapers() -> None:
    """Memory is bounded, and one-time visitors make room for each other before a regular scraper does."""
    scrapers = Scrapers(capacity=4)
    for at in (1.0, 16.0):
        scrapers.answered("10.0.0.1", at)
    for number in range(100):
        scrapers.answered(f"192.0.2.{number}", 17.0 + number / 100)
    assert len(scrapers) == 4
    assert scrapers.waiting_for(20.0) == {"10.0.0.1"}


def test_of_many_regular_scrapers_the_longest_silent_is_forgotten() -> None:
    """Where all are regular, the one not seen for longest makes room."""
    scrapers = Scrapers(capacity=2)
    for client, first in (("10.0.0.1", 1.0), ("10.0.0.2", 2.0)):
        scrapers.answered(client, first)
        scrapers.answered(client, first + 15)
    scrapers.answered("10.0.0.3", 18.0)
    scrapers.answered("10.0.0.3", 19.0)
    assert scrapers.waiting_for(20.0) == {"10.0.0.2", "10.0.0.3"}
