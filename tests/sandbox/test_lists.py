import pytest


def pages(client, url):
    while url:
        body = client.get(url).json()
        yield body[body["meta"]["key"]], body["meta"]
        url = body["meta"]["next_page_url"]


@pytest.mark.parametrize("name", ["Jobs", "Days"])
def test_without_a_page_size_lists_are_cut_at_ten(client, name):
    """The default page has ten items, claims fifty and names no next page."""
    for day in range(1, 13):
        client.create(StartDay=f"2026-01-{day:02}", EndDay=f"2026-01-{day:02}")
    body = client.get(f"/v1/Exports/Messages/{name}").json()
    assert len(body[name.lower()]) == 10
    assert body["meta"]["page_size"] == 50
    assert body["meta"]["next_page_url"] is None


@pytest.mark.parametrize("name", ["Jobs", "Days"])
def test_with_a_page_size_every_item_is_reached_once(client, name):
    """Following next_page_url gives each item once, in the order of creation."""
    for day in range(12, 0, -1):
        client.create(StartDay=f"2026-01-{day:02}", EndDay=f"2026-01-{day:02}")
    got = list(pages(client, f"/v1/Exports/Messages/{name}?PageSize=5"))
    assert [len(items) for items, _ in got] == [5, 5, 2]
    field = "start_day" if name == "Jobs" else "day"
    days = [item[field] for items, _ in got for item in items]
    assert days == [f"2026-01-{day:02}" for day in range(12, 0, -1)]
    assert [meta["page"] for _, meta in got] == [0, 1, 2]
    assert [meta["page_size"] for _, meta in got] == [5, 5, 5]
    assert got[0][1]["previous_page_url"] is None
    assert client.get(got[2][1]["previous_page_url"]).json()[name.lower()] == got[1][0]


def test_a_job_made_between_two_pages_shifts_nothing(client):
    """Page tokens hold a place in the list, not a count."""
    first = [client.create().json()["job_sid"] for _ in range(3)]
    got = client.get("/v1/Exports/Messages/Jobs?PageSize=2").json()
    later = client.create().json()["job_sid"]
    rest = client.get(got["meta"]["next_page_url"]).json()["jobs"]
    assert [job["job_sid"] for job in rest] == [first[2], later]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("PageSize=0", 20001),
        ("PageSize=x", 20001),
        ("PageSize=1001", 20001),
        ("PageSize=5&Page=1", 70002),
        ("PageToken=junk", 20001),
        ("PageToken=PTbnVsbA", 20001),
    ],
)
def test_wrong_pages_are_refused(client, query, code):
    """Sizes out of range, counted pages and invented tokens answer 400."""
    client.create()
    answer = client.get(f"/v1/Exports/Messages/Jobs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_days_have_the_smaller_largest_page(client):
    """Days take a PageSize of 400, jobs one of 1000."""
    assert client.get("/v1/Exports/Messages/Jobs?PageSize=1000").status_code == 200
    assert client.get("/v1/Exports/Messages/Days?PageSize=400").status_code == 200
    assert client.get("/v1/Exports/Messages/Days?PageSize=401").status_code == 400


def test_lists_hold_one_type_of_one_account(client):
    """Jobs and days of other types and of other accounts are not listed."""
    client.sandbox.add_account("AC-other", "token")
    sid = client.create("Calls").json()["job_sid"]
    assert client.get("/v1/Exports/Messages/Jobs").json()["jobs"] == []
    assert len(client.get("/v1/Exports/Calls/Days").json()["days"]) == 1
    client.auth = ("AC-other", "token")
    assert client.get("/v1/Exports/Calls/Jobs").json()["jobs"] == []
    assert client.get("/v1/Exports/Calls/Days").json()["days"] == []
    assert client.get(f"/v1/Exports/Jobs/{sid}").status_code == 404


def test_only_the_days_list_escapes_hyphens(client):
    """A hyphen in a name comes back with a backslash in Days, and clean in Jobs."""
    client.create(FriendlyName="Apr-Jun")
    assert client.get("/v1/Exports/Messages/Jobs").json()["jobs"][0]["friendly_name"] == "Apr-Jun"
    assert client.get("/v1/Exports/Messages/Days").json()["days"][0]["friendly_name"] == "Apr\\-Jun"
