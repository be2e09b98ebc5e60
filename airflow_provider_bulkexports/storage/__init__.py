"""Exported days at rest, in any storage that fsspec reaches. Nothing here knows Airflow."""
