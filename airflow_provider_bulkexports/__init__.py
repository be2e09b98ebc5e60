"""Apache Airflow provider for Twilio's BulkExport API."""

__version__ = "0.1.0"
