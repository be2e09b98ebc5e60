"""Twilio's BulkExport API, free of Airflow: values, client, submit-once."""
