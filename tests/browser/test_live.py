"""A page that stays open: it follows the ledger, keeps what its visitor does, and says when nobody answers."""

import pytest
from billing_api import event, post
from console_server import OPERATOR, VIEWER

from sidecar.billing.tokens import Tokens

pytestmark = pytest.mark.asyncio(loop_scope="session")
CHARGED = "document.querySelector('.hero .figure dd').firstChild.textContent.trim()"
BANNER = "document.querySelector('[data-offline]').textContent"


async def logged_in(visit, server, token=OPERATOR, **options):
    window = await visit(server, **options)
    await window.log_in(token)
    assert await window.text("h1") == "November 2026"
    return window


async def test_figures_follow_the_ledger_and_what_was_opened_stays_open(guarded, visit):
    await post(guarded.api, event(1))
    window = await logged_in(visit, guarded)
    assert await window.page.evaluate(CHARGED) == "1"
    await window.page.evaluate("window.same = document.querySelector('main')")
    await window.page.get_by_text("The same in numbers").click()
    focused = "document.activeElement.tagName"
    assert await window.page.evaluate(focused) == "SUMMARY"
    for number in (2, 3):
        await post(guarded.api, event(number))
        await window.until(f"{CHARGED} === '{number}'")
        assert await window.page.evaluate("document.querySelector('details').open")
        assert await window.page.evaluate(focused) == "SUMMARY"
    assert await window.page.evaluate("window.same === document.querySelector('main')")  # never loaded again


async def test_what_changed_before_a_page_listened_is_not_missed(guarded, visit):
    window = await logged_in(visit, guarded)

    async def post_meanwhile(route):
        await post(guarded.api, event(1))
        await route.continue_()

    await window.page.route("**/live?**", post_meanwhile, times=1)
    await window.page.reload()
    await window.until(f"{CHARGED} === '1'")


async def test_a_page_that_nobody_sees_gives_its_connection_back_and_is_current_when_it_is_seen(guarded, visit):
    window = await logged_in(visit, guarded)
    await window.page.evaluate(
        """window.show = (seen) => {
          Object.defineProperty(document, "hidden", {configurable: true, value: !seen});
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    async with window.page.expect_event("requestfailed", lambda request: "/live" in request.url):
        await window.page.evaluate("show(false)")
    await post(guarded.api, event(1))
    await window.page.evaluate("show(true)")
    await window.until(f"{CHARGED} === '1'")


async def test_without_the_server_the_figures_stay_and_are_said_to_be_old(guarded, visit):
    await post(guarded.api, event(1))
    window = await logged_in(visit, guarded)
    window.expected = ("ERR_",)
    await guarded.stop()
    await window.until(f"{BANNER}.startsWith('Not connected. What you see is as of ')")
    assert await window.page.evaluate(CHARGED) == "1"
    assert await window.axe() == []
    await guarded.start()
    await post(guarded.api, event(2))
    await window.until(f"{BANNER} === '' && {CHARGED} === '2'")


async def test_a_session_that_ends_while_a_page_is_open_asks_to_log_in_and_comes_back(guarded, visit):
    window = await logged_in(visit, guarded, VIEWER)
    window.expected = ("ERR_", "401")
    await guarded.stop()
    guarded.tokens = Tokens("another", "tokens")  # ends every session
    await guarded.start()
    await window.page.wait_for_url("**/login?next=/")
    await window.page.get_by_label("Your name").fill("Ann")
    await window.page.get_by_label("Token").fill("tokens")
    await window.page.get_by_role("button", name="Log in").click()
    await window.page.wait_for_url(window.url + "/")


async def test_what_somebody_chose_and_wrote_outlives_a_change_and_is_decided(guarded, visit):
    await post(guarded.api, event(1, data={"held": True}))
    window = await logged_in(visit, guarded)
    await window.open("/decisions")
    await window.page.get_by_role("checkbox").check()
    await window.page.get_by_label("Reason").fill("it is in the CRM")
    await post(guarded.api, event(2, data={"held": True}))
    # Who writes is not disturbed: the row comes when they have left the field.
    await window.page.evaluate("document.activeElement.blur()")
    await window.until("document.querySelectorAll('tbody tr').length === 2")
    assert await window.page.get_by_label("Reason").input_value() == "it is in the CRM"
    assert await window.page.locator("input:checked").count() == 1
    await window.page.get_by_role("button", name="Release").click()
    assert await window.text("h1") == "Release 1 outcome?"
    await window.page.get_by_role("button", name="Release").click()
    assert await window.text("h1") == "Released"
    [made] = await guarded.billing.decisions_about("ses_1")
    assert (made["kind"], made["actor"], made["reason"]) == ("release", "Ann", "it is in the CRM")


async def test_a_choice_stays_with_its_outcome_when_older_ones_come_and_others_go(guarded, visit):
    await post(guarded.api, event(1, data={"held": True}), event(2, data={"held": True}))
    window = await logged_in(visit, guarded)
    await window.open("/decisions")
    await window.page.get_by_role("checkbox", name="Session ses_2").check()
    chosen = "document.querySelectorAll('input:checked').length"
    links = "[...document.querySelectorAll('tbody a[title^=ses_]')].map((one) => one.title).join()"
    row = "document.querySelector('tr:has(input:checked) a[title^=ses_]').title"
    await window.page.evaluate("document.activeElement.blur()")
    await post(guarded.api, event(3, time="2026-11-21T10:00:00Z", data={"held": True}))
    await window.until(f"{links} === 'ses_3,ses_1,ses_2'")
    assert await window.page.evaluate(f"[{row}, {chosen}]") == ["ses_2", 1]
    await guarded.api.post("/v1/outcomes/out_3/drop", json={"actor": "Bob", "reason": "r"})
    await guarded.api.post("/v1/outcomes/out_1/drop", json={"actor": "Bob", "reason": "r"})
    await window.until(f"{links} === 'ses_2'")
    assert await window.page.evaluate(f"[{row}, {chosen}]") == ["ses_2", 1]


async def test_what_was_written_is_kept_when_the_session_ends_meanwhile(guarded, visit):
    await post(guarded.api, event(1, data={"held": True}))
    window = await logged_in(visit, guarded)
    window.expected = ("ERR_", "401")
    await window.open("/decisions")
    await window.page.get_by_label("Reason").fill("it is in the CRM")
    await window.page.evaluate("document.activeElement.blur()")
    await guarded.stop()
    guarded.tokens = Tokens("another", "tokens")
    await guarded.start()
    await window.until(f"{BANNER}.startsWith('Your session is over.')")
    assert await window.page.get_by_label("Reason").input_value() == "it is in the CRM"
