"""Text messages through Tencent Cloud (腾讯云短信), with the vendor's own library.

`SendSms` answers with a code for each phone, `Ok` or the reason; errors of the request come as exceptions. Limits of half a
minute and an hour pass, the day's limit does not in time for an alert. The library is imported when first needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from metrics_pipeline.delivery.channels import sms
from metrics_pipeline.delivery.channels.channel import Failure, PermanentFailure, RateLimited, TemporaryFailure
from metrics_pipeline.delivery.channels.configuration import Vault
from metrics_pipeline.delivery.channels.redaction import redacted
from metrics_pipeline.delivery.messages import Message

ENDPOINT = "https://sms.tencentcloudapi.com"
LONGEST = 12
"""Characters of one parameter (InvalidParameterValue.TemplateParameterLengthLimit)."""
LIMITED = {
    "LimitExceeded.PhoneNumberThirtySecondLimit": timedelta(seconds=30),
    "LimitExceeded.PhoneNumberOneHourLimit": timedelta(hours=1),
    "LimitExceeded.DeliveryFrequencyLimit": timedelta(minutes=1),
    "RequestLimitExceeded": timedelta(minutes=1),
}
PASSING = (
    "InternalError",
    "ClientNetworkError",
    "ServerNetworkError",
    "JSONDecodeError",
    "FailedOperation.TimeOut",
)
MENDS = {
    "AuthFailure.SignatureFailure": "check the secret key (key_secret_env)",
    "AuthFailure.SecretIdNotFound": "check the secret id (key_id_env)",
    "AuthFailure.SignatureExpire": "check this machine's clock",
    "FailedOperation.InsufficientBalanceInSmsPackage": "the package of text messages is used up; buy one",
    "FailedOperation.SignatureIncorrectOrUnapproved": "the signature is not approved; check sign_name",
    "FailedOperation.TemplateIncorrectOrUnapproved": "the template is not approved, or params has another number of fields",
    "InvalidParameterValue.IncorrectPhoneNumber": "check the receiver's phone number",
    "LimitExceeded.PhoneNumberDailyLimit": "the phone's limit of the day is used up",
}


class TencentSmsSettings(sms.SmsSettings):
    """Tencent Cloud text messages in `channels.yml`."""

    kind: Literal["sms_tencent"] = "sms_tencent"
    app_id: str
    """SmsSdkAppId."""
    region: str = "ap-guangzhou"
    params: tuple[sms.FieldName, ...] = ()
    """Fields in the order of the template's {1}, {2}, …"""

    def open(self, name: str, vault: Vault) -> TencentSmsChannel:
        """The channel. Raises `SettingsError` when a secret cannot be read."""
        return TencentSmsChannel(name=name, settings=self, **self.keys(vault))


@dataclass(frozen=True)
class TencentSmsChannel(sms.SmsChannel):
    """One signature and template. Addresses are phone numbers; without a country code they are of mainland China."""

    settings: TencentSmsSettings

    def send(self, message: Message, address: str) -> str:
        """Send to one phone and return `<Code> <Message> <SerialNo>`. Raises a `Failure`."""
        phone = sms.phone_of(address)
        try:
            from tencentcloud.common import credential
            from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
            from tencentcloud.common.profile.client_profile import ClientProfile
            from tencentcloud.common.profile.http_profile import HttpProfile
            from tencentcloud.sms.v20210111 import models
            from tencentcloud.sms.v20210111.sms_client import SmsClient
        except ImportError:
            raise PermanentFailure(sms.MISSING, mend=sms.MEND_MISSING) from None
        base = urlsplit(self.settings.base_url or ENDPOINT)
        request = models.SendSmsRequest()
        request.PhoneNumberSet = [phone]
        request.SmsSdkAppId = self.settings.app_id
        request.SignName = self.settings.sign_name
        request.TemplateId = self.settings.template_of(message)
        request.TemplateParamSet = sms.values(message, self.settings.params, LONGEST, self.settings.locale)
        request.SessionContext = message.id
        profile = ClientProfile(
            httpProfile=HttpProfile(protocol=base.scheme, endpoint=base.netloc, reqTimeout=sms.TIMEOUT)
        )
        try:
            client = SmsClient(credential.Credential(self.key_id, self.key_secret), self.settings.region, profile)
            statuses: list[Any] = client.SendSms(request).SendStatusSet or []
        except TencentCloudSDKException as error:
            raise failure(str(error.get_code() or "ClientNetworkError"), str(error.get_message() or "")) from None
        except Exception as error:  # what the library does not wrap: broken answers, TLS
            raise TemporaryFailure(f"{base.netloc}: {redacted(str(error)) or type(error).__name__}") from None
        if not statuses:
            raise TemporaryFailure(f"{base.netloc} answered without a status of the phone")
        status = statuses[0]
        if status.Code != "Ok":
            raise failure(str(status.Code), str(status.Message))
        return redacted(f"{status.Code} {status.Message} {status.SerialNo}")


def failure(code: str, text: str) -> Failure:
    """The failure of a vendor's code."""
    answer, mend = redacted(f"{code} {' '.join(text.split())}".strip()), MENDS.get(code, "")
    for known, wait in LIMITED.items():
        if code.startswith(known):
            return RateLimited(answer, code=code, retry_after=wait, only_address="PhoneNumber" in code)
    if code.startswith(PASSING):
        return TemporaryFailure(answer, code=code)
    return PermanentFailure(answer, code=code, mend=mend)
