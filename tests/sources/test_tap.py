"""How many connections a tap relays, and how it spreads their closing."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from exporter.config import TapConfig
from exporter.sources.tap import spread
from tests.support.loops import conversation, in_both_loops
from tests.support.peers import Pair, connected, opened
from tests.support.watching import LOOPBACK, watching
from tests.wire.support import asks


@given(count=st.integers(0, 100), window=st.floats(0.1, 100.0), random=st.randoms(use_true_random=False))
def test_closes_are_spread_evenly(count: int, window: float, random: Random) -> None:
    """Whatever is drawn, the moments ascend within the window, and no tenth of it holds much more than its share."""
    moments = spread(count, window, random.uniform)
    assert len(moments) == count
    assert moments == sorted(moments)
    assert all(0.0 <= moment <= window * (1 + 1e-9) for moment in moments)
    for start in moments:
        assert sum(start <= moment < start + window / 10 for moment in moments) <= count / 10 + 2


@in_both_loops
@conversation
async def test_the_connection_limit(loop: str) -> None:
    """Over the limit, which all taps share, a client gets a 503; the others live on, and who leaves makes room."""
    _, upgrade = asks()
    with opened() as door:
        taps = tuple(TapConfig(LOOPBACK, door.address, "chat") for _ in range(2))
        async with watching(door.address, tap=taps, limits_connections=2) as watched:
            first, second = watched.app.addresses
            with await connected(first) as one, await connected(second) as other:
                pairs = [Pair(client, await door.accept(), watched, door) for client in (one, other)]
                for pair in pairs:
                    await pair.client.send(b"GET ")
                    assert await pair.server.read(4) == b"GET "
                for address in (first, second):
                    with await connected(address) as refused:
                        await refused.send(upgrade)
                        assert (await refused.rest()).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
                assert await watched.handshakes(2) == {("refused_by_exporter", "limit"): 2}
                await pairs[0].client.send(b"/ HTTP/1.1")
                assert await pairs[0].server.read(10) == b"/ HTTP/1.1"
                pairs[0].client.close()
                assert await pairs[0].server.rest() == b""
                pairs[0].server.close()
                page = await watched.page(lambda page: page.value("websocket_exporter_unparsed_streams_total") == 1)
                assert page.value("websocket_exporter_tap_connection_limit") == 2
                with await connected(second) as newcomer:
                    await newcomer.send(b"hello")
                    assert await (await door.accept()).read(5) == b"hello"
