"""The pages of the exporter's listener."""

from collections.abc import Awaitable, Callable

import pytest

from exporter import __version__
from exporter.web.errors import ERRORS
from tests.web.support import connected, fetch, request, serving

Run = Callable[[Awaitable[None]], None]


def test_healthy_while_the_loop_runs(run: Run) -> None:
    """/-/healthy says OK whatever the exporter is doing, also when it is not ready."""

    async def check() -> None:
        async with serving(ready=lambda: False) as site:
            answer = await fetch(site, "/-/healthy")
            assert (answer.status, answer.body) == (200, b"OK")
            assert (await fetch(site, "/-/healthy", "HEAD")).status == 200

    run(check())


def test_ready_only_while_new_work_is_taken(run: Run) -> None:
    """/-/ready follows the exporter, and says when to ask again."""
    taken = False

    async def check() -> None:
        nonlocal taken
        async with serving(ready=lambda: taken) as site:
            answer = await fetch(site, "/-/ready")
            assert answer.status == 503
            assert answer.error == {"error": "not_ready", "detail": "The exporter is starting or shutting down."}
            assert answer.fields["retry-after"] == "5"
            taken = True
            answer = await fetch(site, "/-/ready")
            assert (answer.status, answer.body) == (200, b"ready")
            assert site.errors == {"not_ready": 1}

    run(check())


def test_reload_is_off_unless_it_is_turned_on(run: Run) -> None:
    """Without --web.enable-lifecycle a reload is refused, and says what turns it on."""

    async def check() -> None:
        async with serving() as site:
            answer = await fetch(site, "/-/reload", "POST")
            assert answer.status == 403
            assert answer.error == {"error": "lifecycle_disabled", "detail": ERRORS["lifecycle_disabled"].detail}

    run(check())


def test_reload_says_whether_the_configuration_was_sound(run: Run) -> None:
    """POST /-/reload loads the file: 200 where it is in force now, 500 where the old one stays."""
    outcomes = [True, False]
    calls = 0

    async def reload() -> bool:
        nonlocal calls
        calls += 1
        return outcomes.pop(0)

    async def check() -> None:
        async with serving(reload=reload) as site:
            answer = await fetch(site, "/-/reload", "POST", "Content-Length: 0")
            assert (answer.status, answer.body) == (200, b"reloaded")
            answer = await fetch(site, "/-/reload", "POST")
            assert answer.status == 500
            assert answer.error == {"error": "reload_failed", "detail": ERRORS["reload_failed"].detail}
            assert site.errors == {"reload_failed": 1}

    run(check())
    assert calls == 2


def test_a_reload_whose_request_is_broken_does_not_happen(run: Run) -> None:
    """A request is acted upon only once it has arrived whole."""
    calls = 0

    async def reload() -> bool:
        nonlocal calls
        calls += 1
        return True

    async def check() -> None:
        async with serving(reload=reload) as site, connected(site.address) as client:
            await client.send(request("/-/reload", "POST", "Transfer-Encoding: chunked"), b"zz\r\n")
            assert (await client.answer()).status == 400

    run(check())
    assert calls == 0


def test_a_fault_of_ours_is_a_500_in_the_one_shape(run: Run) -> None:
    """An exception is answered without a word of it, counted, and ends the connection; the listener lives on."""

    async def reload() -> bool:
        raise RuntimeError("secret")

    async def check() -> None:
        async with serving(reload=reload) as site:
            async with connected(site.address) as client:
                await client.send(request("/-/reload", "POST"))
                answer = await client.answer()
                assert answer.status == 500
                assert answer.error == {"error": "internal_error", "detail": ERRORS["internal_error"].detail}
                assert await client.ended()
            assert (await fetch(site, "/-/healthy")).status == 200
            assert site.errors == {"internal_error": 1}

    run(check())


def test_the_landing_page_leads_to_the_others_and_tells_nothing_else(run: Run) -> None:
    """/ names product and version, links to metrics, health and readiness, and says how to see the status page."""

    async def check() -> None:
        async with serving(telemetry_path="/the<metrics>") as site:
            answer = await fetch(site, "/")
            page = answer.body.decode()
            assert answer.status == 200
            assert answer.fields["content-type"] == "text/html; charset=utf-8"
            assert answer.fields["content-security-policy"].startswith("default-src 'none'")
            assert f"Version {__version__}." in page
            for link in ("/the&lt;metrics&gt;", "/-/healthy", "/-/ready"):
                assert f'href="{link}"' in page
            assert "The status page says in words" in page
            for setting in ("--web.config.file", "--web.listen-address=127.0.0.1:11009"):
                assert f"<code>{setting}</code>" in page
            assert (await fetch(site, "/the%3Cmetrics%3E")).body.startswith(b"# HELP")

    run(check())


@pytest.mark.parametrize(
    "path", ["/nothing", "/metrics/", "/-/healthy/", "/-", "//metrics", "/%2e%2e/metrics", "/metrics/../x"]
)
def test_an_unknown_path_is_a_404(run: Run, path: str) -> None:
    """Paths are exact: nothing is redirected, and what is asked for is not echoed."""

    async def check() -> None:
        async with serving() as site:
            answer = await fetch(site, path)
            assert answer.status == 404
            assert answer.error == {"error": "not_found", "detail": "Nothing is served at this path."}
            assert answer.fields["content-type"] == "application/json"
            assert site.errors == {"not_found": 1}

    run(check())


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        ("/", "POST", "GET, HEAD"),
        ("/-/healthy", "DELETE", "GET, HEAD"),
        ("/-/ready", "POST", "GET, HEAD"),
        ("/-/reload", "GET", "POST"),
        ("/-/reload", "PUT", "POST"),
    ],
)
def test_a_wrong_method_is_a_405_that_names_the_right_ones(run: Run, path: str, method: str, allow: str) -> None:
    """Allow lists the methods of the path, and the connection stays."""

    async def check() -> None:
        async with serving() as site, connected(site.address) as client:
            await client.send(request(path, method))
            answer = await client.answer()
            assert answer.status == 405
            assert answer.error["error"] == "method_not_allowed"
            assert answer.fields["allow"] == allow
            await client.send(request())
            assert (await client.answer()).status == 200

    run(check())
