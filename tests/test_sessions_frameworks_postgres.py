"""Flask and Django over a real PostgreSQL: a cart that is filled at one process is whole at another."""

from __future__ import annotations

from collections.abc import Iterator

import flask
import pytest
from django.http import HttpRequest
from django.test import Client, override_settings

from farmsyncd.sessions import Sessions
from farmsyncd.sessions.flask import FarmsyncSessions
from tests import django_site  # before what needs Django's settings
from tests.session_farm import QUIET
from tests.session_scenes import patient_store


@pytest.fixture
def nodes(postgres_url: str) -> Iterator[list[Sessions]]:
    """Two processes' sessions in one database."""
    both = [Sessions(patient_store(postgres_url), QUIET) for _ in range(2)]
    both[0].store.prepare()
    yield both
    for one in both:
        one.close()


def test_flasks_carts_are_whole_wherever_the_shopper_lands(nodes: list[Sessions]) -> None:
    def shop(sessions: Sessions) -> flask.Flask:
        app = flask.Flask("shop")
        FarmsyncSessions(app, sessions)

        @app.post("/<article>")
        def add(article: str) -> dict[str, int]:
            flask.session[article] = flask.session.get(article, 0) + 1
            return dict(flask.session)

        return app

    first, second = (shop(one).test_client(use_cookies=False) for one in nodes)
    cookie = None
    for number in range(6):
        client = (first, second)[number % 2]
        answer = client.post("/pears", headers={} if cookie is None else {"Cookie": cookie})
        assert answer.json == {"pears": number + 1}
        cookie = answer.headers["Set-Cookie"].partition(";")[0]


def test_djangos_carts_are_whole_wherever_the_shopper_lands(nodes: list[Sessions]) -> None:
    def add(request: HttpRequest) -> None:
        request.session["pears"] = request.session.get("pears", 0) + 1

    django_site.VIEWS["add"] = add
    browser = Client()
    for number in range(6):
        with override_settings(FARMSYNC_SESSIONS=nodes[number % 2]):
            assert django_site.shown(browser.post("/add")) == {"pears": number + 1}
