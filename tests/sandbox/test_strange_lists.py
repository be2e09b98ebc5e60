"""Lists with odd items, and lists without an end."""

import pytest

JOBS = "/v1/Exports/Messages/Jobs"


def pages(client, url, most=9):
    """Follow the next pages, up to ``most`` of them."""
    found = []
    while url and len(found) < most:
        found.append(client.get(url).json())
        url = found[-1]["meta"]["next_page_url"]
    return found


@pytest.mark.parametrize("item", [None, 7, "JS", [], {}, {"job_sid": None, "details": 3}])
@pytest.mark.parametrize("path", ["Jobs", "Days"])
def test_an_odd_item_comes_on_the_first_page(client, path, item):
    """Any JSON may stand among the items of a first page, and only there."""
    for number in range(1, 4):
        client.create(StartDay=f"2026-01-0{number}", EndDay=f"2026-01-0{number}")
    client.sandbox.add_fault({"kind": "odd_item", "item": item, "times": -1})
    # A fault of the statuses must not stumble over it.
    client.sandbox.add_fault({"kind": "status_word", "times": -1})
    items = [
        page[path.lower()] for page in pages(client, f"/v1/Exports/Messages/{path}?PageSize=2")
    ]
    assert [len(page) for page in items] == [3, 1]
    assert items[0][2] == item


def test_fields_of_items_may_be_overwritten(client):
    """Fields of one job, or of all items, may be others than they are."""
    first, second = (client.create().json()["job_sid"] for _ in range(2))
    fault = {"route": "list_jobs", "kind": "odd_item", "fields": {"details": None, "new": [1]}}
    client.sandbox.add_fault(fault | {"job_sid": second})
    one, other = client.get(JOBS).json()["jobs"]
    assert (one["job_sid"], one["details"][0]["status"], "new" in one) == (
        first,
        "Completed",
        False,
    )
    assert (other["job_sid"], other["details"], other["new"]) == (second, None, [1])
    client.sandbox.add_fault({"kind": "odd_item", "fields": {"size": -1}})
    assert client.get("/v1/Exports/Messages/Days").json()["days"][0]["size"] == -1


@pytest.mark.parametrize("path", ["Jobs", "Days"])
@pytest.mark.parametrize("count", [0, 3])
def test_an_endless_list(client, path, count):
    """There is a next page with a new token for ever; all items come, each once."""
    for number in range(1, count + 1):
        client.create(StartDay=f"2026-01-0{number}", EndDay=f"2026-01-0{number}")
    client.sandbox.add_fault({"kind": "endless", "times": -1})
    found = pages(client, f"/v1/Exports/Messages/{path}?PageSize=2")
    assert len(found) == 9
    assert sum(len(page[path.lower()]) for page in found) == count
    assert len({page["meta"]["next_page_url"] for page in found}) == 9
