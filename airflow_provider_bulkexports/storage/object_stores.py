"""Days in object stores: S3, Azure Blob and Google Cloud Storage."""
# ruff: noqa: SLF001 - the public forms of the filesystems' coroutines cannot be stopped

from __future__ import annotations

import asyncio
import concurrent.futures
import posixpath
from abc import abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.errors import StorageError
from airflow_provider_bulkexports.storage.backend import Backend, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from pathlib import Path

__all__ = ["AzureBackend", "GoogleBackend", "S3Backend"]

POLL_SECONDS = 0.1


class _ObjectBackend(Backend):
    """What the object stores have in common: their filesystems run in an event loop."""

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the filesystem's loop until it ends or the check raises."""
        running = asyncio.run_coroutine_threadsafe(coroutine, self._fs.loop)
        try:
            while True:
                if concurrent.futures.wait([running], POLL_SECONDS).done:
                    return running.result()
                self._check()
        finally:
            running.cancel()

    def _split(self, path: str) -> tuple[str, str]:
        bucket, _, key = path.partition("/")
        return bucket, key

    def _get(self, path: str, target: Path) -> None:
        self._run(self._fs._get_file(path, str(target)))

    def _put(self, path: str, source: Path) -> None:
        # Never a file handle here: closing one in an error would complete a half upload.
        self._run(self._fs._put_file(str(source), path))

    def _list_below(
        self, root: str, first: str = "", last: str = ""
    ) -> Iterable[tuple[str, Entry]]:
        bucket, key = self._split(root)
        prefix = f"{key}/" if key else ""
        narrow = posixpath.commonprefix([first, last])
        for name, entry in self._pages(bucket, prefix + narrow, prefix + first, prefix + last):
            yield name.removeprefix(prefix), entry

    @abstractmethod
    def _pages(
        self, bucket: str, prefix: str, first: str, last: str
    ) -> Iterable[tuple[str, Entry]]:
        """Return the objects with a prefix, at least those from first to below last."""


class S3Backend(_ObjectBackend):
    """S3 and what speaks its protocol, over s3fs."""

    def is_over(self, error: BaseException) -> bool:
        """Return whether the storage refused the call."""
        return isinstance(error, StorageError) and 400 <= _s3_answer(error.__cause__)[0] < 500

    def _split(self, path: str) -> tuple[str, str]:
        bucket, key, _ = self._fs.split_path(path)
        return bucket, key

    def _pages(
        self, bucket: str, prefix: str, first: str, last: str
    ) -> Iterable[tuple[str, Entry]]:
        options = {"Bucket": bucket, "Prefix": prefix, **self._fs.req_kw}
        if first > prefix:
            options["StartAfter"] = first
        while True:
            page = self._run(self._fs._call_s3("list_objects_v2", **options))
            contents = page.get("Contents", [])
            for item in contents:
                yield item["Key"], Entry(item["Size"], item["LastModified"].timestamp())
            if not page.get("IsTruncated") or (last > prefix and contents[-1]["Key"] > f"{last}0"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def _read(self, path: str) -> bytes | None:
        bucket, key = self._split(path)
        options = {"Bucket": bucket, "Key": key, **self._fs.req_kw}

        async def download() -> bytes:
            # The filesystem's own way asks for the size first.
            answer = await self._fs._call_s3("get_object", **options)
            async with answer["Body"] as body:
                return bytes(await body.read())

        try:
            return self._run(download())  # type: ignore[no-any-return]
        except FileNotFoundError as error:
            if _s3_answer(error)[1] == "NoSuchBucket":
                raise
            return None

    def _create(self, path: str, content: bytes) -> bool:
        bucket, key = self._split(path)
        options = {"Bucket": bucket, "Key": key, "Body": content, "IfNoneMatch": "*"}
        try:
            self._run(self._fs._call_s3("put_object", **options))
        except OSError as error:
            # 409 where another create of the same name is under way.
            if _s3_answer(error)[0] in (409, 412):
                return False
            raise
        return True

    def _write(self, path: str, content: bytes) -> None:
        bucket, key = self._split(path)
        self._run(self._fs._call_s3("put_object", Bucket=bucket, Key=key, Body=content))

    def _remove(self, path: str) -> None:
        bucket, key = self._split(path)
        self._run(self._fs._call_s3("delete_object", Bucket=bucket, Key=key))

    def _clean(self, folder: str) -> None:
        bucket, key = self._split(folder)
        options = {"Bucket": bucket, "Prefix": f"{key}/"}
        while True:
            page = self._run(self._fs._call_s3("list_multipart_uploads", **options))
            for upload in page.get("Uploads", []):
                names = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                self._run(self._fs._call_s3("abort_multipart_upload", Bucket=bucket, **names))
            if not page.get("IsTruncated"):
                return
            options["KeyMarker"] = page["NextKeyMarker"]
            options["UploadIdMarker"] = page["NextUploadIdMarker"]

    def _words(self, error: BaseException) -> str:
        status, code, message = _s3_answer(error)
        return f"{message} ({code}, HTTP {status})" if code else super()._words(error)


def _s3_answer(error: BaseException | None) -> tuple[int, str, str]:
    """Return the status, the code and the message that S3 answered; 0 and "" if it did not."""
    while error is not None:
        answer: Mapping[str, Any] | None = getattr(error, "response", None)
        if isinstance(answer, dict) and "Error" in answer:
            status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            said = answer["Error"]
            return status, str(said.get("Code", "")), str(said.get("Message", ""))
        error = error.__cause__
    return 0, "", ""


class AzureBackend(_ObjectBackend):
    """Azure Blob Storage, over adlfs; its own listing tells a missing container from an empty."""

    def is_over(self, error: BaseException) -> bool:
        """Return whether the storage refused the call."""
        status = getattr(error.__cause__, "status_code", None) or 0
        return isinstance(error, StorageError) and 400 <= status < 500

    def _split(self, path: str) -> tuple[str, str]:
        container, key, _ = self._fs.split_path(path)
        return container, key

    def _pages(
        self,
        bucket: str,
        prefix: str,
        first: str,  # noqa: ARG002
        last: str,  # noqa: ARG002
    ) -> Iterable[tuple[str, Entry]]:
        async def collect() -> list[tuple[str, Entry]]:
            async with self._fs.service_client.get_container_client(bucket) as container:
                return [
                    (blob.name, Entry(blob.size or 0, blob.last_modified.timestamp()))
                    async for blob in container.list_blobs(name_starts_with=prefix)
                ]

        return self._run(collect())  # type: ignore[no-any-return]

    def _read(self, path: str) -> bytes | None:
        async def download(blob: Any) -> bytes:
            return bytes(await (await blob.download_blob()).readall())

        return self._run_if_there(path, download)

    def _create(self, path: str, content: bytes) -> bool:
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError

        try:
            self._upload(path, content, overwrite=False)
        except (ResourceExistsError, ResourceModifiedError):
            return False
        return True

    def _write(self, path: str, content: bytes) -> None:
        self._upload(path, content, overwrite=True)

    def _remove(self, path: str) -> None:
        async def delete(blob: Any) -> bytes:
            await blob.delete_blob()
            return b""

        self._run_if_there(path, delete)

    def _upload(self, path: str, content: bytes, *, overwrite: bool) -> None:
        async def upload() -> None:
            async with self._blob(path) as blob:
                await blob.upload_blob(content, overwrite=overwrite)

        self._run(upload())

    def _run_if_there(
        self, path: str, use: Callable[[Any], Coroutine[Any, Any, bytes]]
    ) -> bytes | None:
        from azure.core.exceptions import ResourceNotFoundError

        async def run() -> bytes:
            async with self._blob(path) as blob:
                return await use(blob)

        try:
            return self._run(run())  # type: ignore[no-any-return]
        except ResourceNotFoundError as error:
            if getattr(error, "error_code", None) != "BlobNotFound":
                raise
            return None

    def _blob(self, path: str) -> Any:
        container, key = self._split(path)
        return self._fs.service_client.get_blob_client(container, key)

    def _words(self, error: BaseException) -> str:
        code = getattr(error, "error_code", None)
        if code is None:
            return super()._words(error)
        # The further lines hold the request's id and the whole XML.
        words = str(getattr(error, "message", "") or error).splitlines()[0]
        code = getattr(code, "value", code)
        return f"{words} ({code}, HTTP {getattr(error, 'status_code', None)})"


class GoogleBackend(_ObjectBackend):
    """Google Cloud Storage, over gcsfs."""

    def is_over(self, error: BaseException) -> bool:
        """Return whether the storage refused the call."""
        return isinstance(error, StorageError) and 400 <= _google_status(error.__cause__) < 500

    def _pages(
        self, bucket: str, prefix: str, first: str, last: str
    ) -> Iterable[tuple[str, Entry]]:
        options = {"prefix": prefix, "maxResults": 1000}
        if last > prefix:
            options |= {"startOffset": first, "endOffset": f"{last}0"}
        while True:
            page = self._run(self._fs._call("GET", "b/{}/o", bucket, json_out=True, **options))
            for item in page.get("items", []):
                modified = datetime.fromisoformat(item["updated"]).timestamp()
                yield item["name"], Entry(int(item["size"]), modified)
            if not page.get("nextPageToken"):
                return
            options["pageToken"] = page["nextPageToken"]

    def _read(self, path: str) -> bytes | None:
        try:
            return bytes(self._run(self._fs._cat_file(path)))
        except FileNotFoundError:
            self._check_bucket(path)
            return None

    def _create(self, path: str, content: bytes) -> bool:
        try:
            self._run(self._fs._pipe_file(path, content, mode="create"))
        except Exception as error:
            if _google_status(error) == 412:
                return False
            raise
        return True

    def _write(self, path: str, content: bytes) -> None:
        self._run(self._fs._pipe_file(path, content))

    def _remove(self, path: str) -> None:
        try:
            self._run(self._fs._rm_file(path))
        except FileNotFoundError:
            self._check_bucket(path)

    def _check_bucket(self, path: str) -> None:
        # It says only "not found", of an object and of a bucket alike.
        bucket, _ = self._split(path)
        self._run(self._fs._call("GET", "b/{}/o", bucket, maxResults=1))

    def _words(self, error: BaseException) -> str:
        if isinstance(error, FileNotFoundError):
            return f"there is no such bucket, says {error} (HTTP 404)"
        status = _google_status(error)
        return f"{super()._words(error)} (HTTP {status})" if status else super()._words(error)


def _google_status(error: BaseException | None) -> int:
    if isinstance(error, FileExistsError):
        return 412
    if isinstance(error, PermissionError):
        return 403
    if isinstance(error, FileNotFoundError):
        return 404
    return int(getattr(error, "code", None) or 0)
