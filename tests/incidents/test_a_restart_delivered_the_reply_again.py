"""
A restart delivered the reply again (hermes-agent #92589, #95369).

What happened there: the restart waited until no turn was running; that the reply was still on
its way did not count.  The next process found the delivery half done and sent it once more,
with an excuse.  And where a stream had broken, the model was told to continue a reply that
was complete: its end came twice.

What happens here: a drain waits for what is on its way.  After a kill nobody can know whether
it arrived; it is sent again under the same key, with the same bytes, and said to be.  No model
is asked for it, and `continue` is a message like any other.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.channels.webhook import Webhook
from holdfast.lab.scenarios.deliveries import restart_in_mid_delivery
from support.mutant_players import known_to_children
from support.played import played

NAME = "restarted-in-mid-delivery"


async def test_the_user_has_it_once(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["the_delivery_was_waited_for"]
    assert saw.facts["requests_for_it"] == 1
    assert saw.facts["sent_again"] == 2
    assert saw.facts["acted_on_by_the_receiver"] == 1


async def test_a_drain_that_does_not_count_deliveries_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_to_children(monkeypatch)
    saw = await restart_in_mid_delivery(
        str(tmp_path), gateway="support.mutant_players:delivers_carelessly"
    )
    assert not saw.ok
    assert not saw.facts["the_delivery_was_waited_for"]
    assert saw.facts["requests_for_it"] == 2


async def test_a_key_of_its_own_for_each_attempt_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Webhook.deliver

    async def deliver(self: Webhook, parcel: Any) -> str | None:
        return await real(self, replace(parcel, key=f"{parcel.key}-{parcel.attempt}"))

    monkeypatch.setattr(Webhook, "deliver", deliver)
    saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["acted_on_by_the_receiver"] == 2
