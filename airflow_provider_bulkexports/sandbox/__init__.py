"""A BulkExport service on localhost: to try things without an account, and our test double.

Run ``python -m airflow_provider_bulkexports.sandbox``, or use
:class:`airflow_provider_bulkexports.sandbox.server.Sandbox` in a test. Needs the extra
``airflow-provider-bulkexports[sandbox]``. Its accounts, numbers and records are made up.
"""
