"""Text messages through Aliyun (阿里云短信服务), with the vendor's own library.

`SendSms` answers HTTP 200 with `Code` `OK` or the reason. Limits by minute and hour pass, the day's limit does not in time
for an alert (isv.BUSINESS_LIMIT_CONTROL in the vendor's list of errors). The library is imported when first needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from metrics_pipeline.delivery.channels import sms
from metrics_pipeline.delivery.channels.channel import Failure, PermanentFailure, RateLimited, TemporaryFailure
from metrics_pipeline.delivery.channels.configuration import Vault
from metrics_pipeline.delivery.channels.redaction import redacted
from metrics_pipeline.delivery.messages import Message

ENDPOINT = "https://dysmsapi.aliyuncs.com"
LONGEST = 35
"""Characters of one variable of a notification."""
PASSING = (
    "isp.SYSTEM_ERROR",
    "isp.GATEWAY_ERROR",
    "isp.UNKNOWN",
    "SignatureNonceUsed",
    "ServiceUnavailable",
    "InternalError",
)
LIMITS = (
    "isv.BUSINESS_LIMIT_CONTROL",
    "BUSINESS_LIMIT_CONTROL_MINUTE",
    "isv.BUSINESS_LIMIT_HOUR",
    "isv.DAY_LIMIT_CONTROL",
)
MENDS = {
    "isv.AMOUNT_NOT_ENOUGH": "the account has no balance; top it up",
    "isv.OUT_OF_SERVICE": "the account is stopped; check its balance",
    "isv.SMS_SIGNATURE_ILLEGAL": "the signature is not approved; check sign_name",
    "isv.SMS_TEMPLATE_ILLEGAL": "the template is not approved; check template",
    "isv.TEMPLATE_MISSING_PARAMETERS": "the template has variables that params does not fill",
    "isv.MOBILE_NUMBER_ILLEGAL": "check the receiver's phone number",
    "InvalidAccessKeyId.NotFound": "check the access key (key_id_env)",
    "SignatureDoesNotMatch": "check the access key's secret (key_secret_env)",
    "InvalidTimeStamp.Expired": "check this machine's clock",
    "isp.RAM_PERMISSION_DENY": "grant the access key the right to send text messages",
}


class AliyunSmsSettings(sms.SmsSettings):
    """Aliyun text messages in `channels.yml`."""

    kind: Literal["sms_aliyun"] = "sms_aliyun"
    params: dict[str, sms.FieldName] = Field(default_factory=dict)
    """Variable of the template → field."""

    def open(self, name: str, vault: Vault) -> AliyunSmsChannel:
        """The channel. Raises `SettingsError` when a secret cannot be read."""
        return AliyunSmsChannel(name=name, settings=self, **self.keys(vault))


@dataclass(frozen=True)
class AliyunSmsChannel(sms.SmsChannel):
    """One signature and template. Addresses are phone numbers."""

    settings: AliyunSmsSettings

    def send(self, message: Message, address: str) -> str:
        """Send to one phone and return `<Code> <Message> <BizId>`. Raises a `Failure`."""
        phone = sms.phone_of(address)
        try:
            from alibabacloud_dysmsapi20170525.client import Client
            from alibabacloud_dysmsapi20170525.models import SendSmsRequest
            from alibabacloud_tea_openapi.models import Config
            from alibabacloud_tea_util.models import RuntimeOptions
        except ImportError:
            raise PermanentFailure(sms.MISSING, mend=sms.MEND_MISSING) from None
        base = urlsplit(self.settings.base_url or ENDPOINT)
        names = tuple(self.settings.params.values())
        filled = sms.values(message, names, LONGEST, self.settings.locale)
        request = SendSmsRequest(
            phone_numbers=phone,
            sign_name=self.settings.sign_name,
            template_code=self.settings.template_of(message),
            template_param=json.dumps(dict(zip(self.settings.params, filled, strict=True)), ensure_ascii=False),
            out_id=message.id,
        )
        milliseconds = sms.TIMEOUT * 1000
        options = RuntimeOptions(autoretry=False, connect_timeout=milliseconds, read_timeout=milliseconds)
        try:
            client = Client(
                Config(
                    access_key_id=self.key_id,
                    access_key_secret=self.key_secret,
                    endpoint=base.netloc,
                    protocol=base.scheme.upper(),
                )
            )
            body: Any = client.send_sms_with_options(request, options).body
        except Exception as error:  # the library wraps all in classes that change with its versions
            raise _of_error(error, base.netloc) from None
        code = str(body.code)
        if code != "OK":
            raise failure(code, str(body.message))
        return redacted(f"{code} {body.message} {body.biz_id}")


def failure(code: str, text: str) -> Failure:
    """The failure of a vendor's code; the text says whether the limit is one of minutes, hours or the day."""
    answer, mend = redacted(f"{code} {' '.join(text.split())}".strip()), MENDS.get(code, "")
    if code in LIMITS:
        if "天级" in text or "DAY" in code.upper() or "day" in text.lower():
            return PermanentFailure(answer, code=code, mend="the phone's limit of the day is used up")
        is_hour = "小时级" in text or "HOUR" in code or "hour" in text.lower()
        wait = timedelta(hours=1) if is_hour else timedelta(minutes=1)
        return RateLimited(answer, code=code, retry_after=wait, only_address=True)
    if code.startswith("Throttling"):
        return RateLimited(answer, code=code, retry_after=timedelta(minutes=1))
    if code.startswith(PASSING):
        return TemporaryFailure(answer, code=code)
    return PermanentFailure(answer, code=code, mend=mend)


def _of_error(error: Exception, where: str) -> Failure:
    code = str(getattr(error, "code", "") or "")
    status = getattr(error, "status_code", None) or getattr(error, "statusCode", None)
    text = str(getattr(error, "message", "") or error)
    if not code or status is None:
        return TemporaryFailure(f"{where}: {redacted(text) or type(error).__name__}")
    found = failure(code, text.removeprefix("code: ").strip())
    if isinstance(found, PermanentFailure) and int(status) >= 500:
        return TemporaryFailure(found.answer, code=code)
    return found
