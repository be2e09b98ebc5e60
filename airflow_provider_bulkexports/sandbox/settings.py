"""What a sandbox can be told."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_bulkexports.sandbox.jobs import EMPTY_FORMS

__all__ = ["DEFAULT_ACCOUNT_SID", "DEFAULT_AUTH_TOKEN", "Settings"]

DEFAULT_ACCOUNT_SID = "AC" + "5a" * 16
"""Account of a sandbox that is not told another."""

DEFAULT_AUTH_TOKEN = "sandbox-auth-token"  # noqa: S105 - opens nothing but the sandbox
"""Auth token of that account; in no way like a real one."""


@dataclass(frozen=True, slots=True)
class Settings:
    """
    How a sandbox behaves when nothing goes wrong.

    :param speed: jobs run this many times faster than the thirty seconds and more of speed 1.
    :param job_seconds: makes every job take exactly this long, whatever ``speed`` says.
    :param records: records in a day.
    :param seed: decides records, empty days and the order in which days finish.
    :param empty_every: about one day in this many has no records; 0 for none.
    :param empty_form: what an empty day looks like, of ``absent``, ``not_found``,
        ``zero_bytes`` and ``empty_gzip``.
    :param repeated_rows: records of a day that come twice.
    :param settle_days: days after its end until a day's records are final; what is exported earlier
        has every eighth of them as they were before.
    :param file_lag: seconds from a day's completion until its file is available.
    :param link_seconds: life of a signed link.
    :param quota_days: days an account and its subaccounts may request per UTC day.
    :param quota_status: HTTP status of a request over the quota; Twilio's is not documented.
    :param quota_code: Twilio code of a request over the quota.
    :param delete_finished: how a finished or deleted job is deleted, which is unknown:
        ``404`` and ``204`` answer so and change nothing, ``removes`` answers 204 and takes the
        job off list and fetch.
    :param deleted_jobs: whether an unfinished job that is deleted stays ``listed``, with words
        that say so, or is ``gone`` from list and fetch at once.
    :param editions: whether the account may switch on daily exports.
    :param webhook_copies: how often a webhook is called; Twilio was seen to call four times.
    """

    speed: float = 1.0
    job_seconds: float | None = None
    records: int = 1000
    seed: int = 0
    empty_every: int = 20
    empty_form: str = "absent"
    repeated_rows: int = 0
    settle_days: int = 0
    file_lag: float = 0.0
    link_seconds: float = 240.0
    quota_days: int = 366
    quota_status: int = 400
    quota_code: int = 20001
    delete_finished: str = "404"
    deleted_jobs: str = "listed"
    editions: bool = True
    webhook_copies: int = 1

    def __post_init__(self) -> None:
        if self.speed <= 0:
            raise ValueError("speed must be above 0")
        if self.job_seconds is not None and self.job_seconds < 0:
            raise ValueError("job_seconds must not be negative")
        if self.records < 0:
            raise ValueError("records must not be negative")
        if self.empty_form not in EMPTY_FORMS:
            raise ValueError(f"empty_form is one of {', '.join(EMPTY_FORMS)}")
        for name, allowed in (
            ("delete_finished", ("404", "204", "removes")),
            ("deleted_jobs", ("listed", "gone")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}")

    def seconds_for(self, days: int) -> float:
        """Return how long a job of this many days takes."""
        if self.job_seconds is not None:
            return self.job_seconds
        return min(30 + 3 * days, 900) / self.speed
