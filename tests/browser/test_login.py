"""Who gets in, and what a session can be used for: in a browser, with its own idea of cookies, sites and forms."""

import pytest
from aiohttp import web
from billing_api import event, post
from console_server import OPERATOR, VIEWER

from sidecar.billing.console import login

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_token_gets_a_session_that_no_script_sees_and_no_other_site_uses(guarded, visit):
    window = await visit(guarded)
    await window.log_in(OPERATOR, "Ann", "/?period=2026-10")
    assert window.page.url == window.url + "/?period=2026-10"
    assert await window.text(".visitor span") == "Ann, operator"
    [cookie] = await window.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"], cookie["secure"]) == (True, "Lax", "/", False)
    assert OPERATOR not in cookie["value"]
    assert await window.page.evaluate("document.cookie") == ""
    await window.page.get_by_role("button", name="Log out").click()
    await window.page.wait_for_url("**/login")
    assert await window.context.cookies() == []
    await window.open("/")
    assert window.page.url == window.url + "/login?next=/"


async def test_behind_tls_the_cookie_is_for_tls_alone(guarded, visit):
    window = await visit(guarded, extra_http_headers={"X-Forwarded-Proto": "https"})
    answer = await window.context.request.post(
        guarded.url + "/login", form={"token": VIEWER, "name": "Vic", "next": "/"}, max_redirects=0
    )
    assert answer.status == 303
    assert "; Secure" in answer.headers["set-cookie"]


async def test_a_wrong_token_is_said_to_be_wrong_and_nothing_else_is_lost(guarded, visit, monkeypatch):
    monkeypatch.setattr(login, "FAILURE_SECONDS", 0.01)
    window = await visit(guarded)
    window.expected = ("401",)
    await window.log_in("guessed", "Ann", "/?period=2026-10")
    assert await window.text("[role=alert]") == "This token is not one of this ledger’s."
    assert await window.page.get_by_label("Your name").input_value() == "Ann"
    assert await window.context.cookies() == []
    assert await window.axe() == []
    await window.page.get_by_label("Token").fill(VIEWER)
    await window.page.get_by_role("button", name="Log in").click()
    await window.page.wait_for_url("**/?period=2026-10")
    assert await window.text(".visitor span") == "Ann, viewer"


async def test_the_login_leads_to_our_own_pages_alone(guarded):
    elsewhere = ("//evil.example", "/\\evil.example", "https://evil.example/", "javascript:alert(1)", "/a\r\nX: 1", "")
    for wanted in elsewhere:
        answer = await guarded.api.post("/login", data={"token": OPERATOR, "name": "Ann", "next": wanted})
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), wanted
    for wanted in ("/", "/?period=2026-10", "/x/%2F%2Fy"):
        answer = await guarded.api.post("/login", data={"token": OPERATOR, "name": "Ann", "next": wanted})
        assert (answer.status_code, answer.headers["location"]) == (303, wanted)


async def test_a_form_on_another_site_can_do_nothing(guarded, visit):
    """The site is another one even on the same host, since cookies do not tell ports apart."""

    async def trap(_):
        form = f"<form method=post action={guarded.url}/logout><input name=form_key value=x></form>"
        return web.Response(
            text=f"<!doctype html>{form}<button onclick=document.forms[0].submit()>Win</button>",
            content_type="text/html",
        )

    app = web.Application()
    app.router.add_get("/", trap)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        window = await visit(guarded)
        await window.log_in(OPERATOR)
        window.expected = ("403", "asked elsewhere", "404")
        await window.page.goto(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        async with window.page.expect_navigation():
            await window.page.get_by_role("button", name="Win").click()
        assert "this form is not of this session" in await window.text("main")
        await window.open("/")
        assert await window.text(".visitor span") == "Ann, operator"
    finally:
        await runner.cleanup()


async def test_a_forged_cookie_is_nobody(guarded, visit):
    window = await visit(guarded)
    await window.log_in(VIEWER)
    [cookie] = await window.context.cookies()
    content, _, signature = cookie["value"].partition(".")
    await window.page.goto("about:blank")  # an open page would notice at once
    await window.context.clear_cookies()
    forged = {"name": cookie["name"], "value": f"{content[:-2]}xx.{signature}", "url": guarded.url}
    await window.context.add_cookies([forged])
    await window.open("/")
    assert window.page.url.startswith(window.url + "/login")


async def test_a_viewer_sees_everything_and_decides_nothing(guarded, visit):
    await post(guarded.api, event(1, data={"held": True}))
    window = await visit(guarded)
    await window.log_in(VIEWER, "Vic")
    await window.open("/decisions")
    assert await window.text("h1") == "1 waits for a decision"
    assert await window.page.get_by_role("button", name="Release").count() == 0
    key = await window.page.locator("[name=form_key]").first.get_attribute("value")
    form = {"form_key": key, "outcome": "out_1", "kind": "release", "actor": "Vic", "reason": "x", "confirmed": "yes"}
    answer = await window.context.request.post(guarded.url + "/decisions", form=form)
    assert answer.status == 403
    assert "a viewer&#39;s token cannot do this" in await answer.text()
    assert await guarded.billing.decisions_about("ses_1") == []


async def test_everything_works_without_script(guarded, visit):
    await post(guarded.api, event(1, data={"held": True}))
    window = await visit(guarded, java_script_enabled=False)
    page = window.page
    await window.log_in(OPERATOR, "Ann", "/customers")
    await page.get_by_role("textbox", name="Month").fill("2026-10")
    await page.get_by_role("button", name="Show").click()
    await page.wait_for_url("**/customers?period=2026-10")
    await page.get_by_role("link", name="The month after, November 2026").click()
    await page.wait_for_url("**/customers?period=2026-11")
    await page.get_by_role("link", name="Decisions").click()
    await page.get_by_role("checkbox").check()
    await page.get_by_label("Reason").fill("it is in the CRM")
    await page.get_by_role("button", name="Release").click()
    await page.get_by_role("button", name="Release").click()
    assert await window.text("h1") == "Released"
    await page.locator("main li").get_by_role("link").click()
    assert await window.text("h1") == "Charged $1.00"
    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_url("**/login")
