"""Text messages through the vendors' own libraries, pointed at a local server that checks their signatures."""

from __future__ import annotations

from datetime import timedelta

import pytest

from metrics_pipeline.delivery.channels import PermanentFailure, RateLimited, TemporaryFailure
from metrics_pipeline.delivery.channels.sms_aliyun import AliyunSmsChannel, AliyunSmsSettings
from metrics_pipeline.delivery.channels.sms_tencent import TencentSmsChannel, TencentSmsSettings
from metrics_pipeline.delivery.messages import compose
from tests.delivery.builders import make_end, make_notice
from tests.delivery.vendor_stub import Answer

MESSAGE, END = compose(make_notice()), compose(make_end())
KEYS = ("LTAI-key-id", "key-secret-1")


def aliyun(stub, keys=KEYS, **changes) -> AliyunSmsChannel:
    settings = AliyunSmsSettings(
        key_id_env="A",
        key_secret_env="B",
        sign_name="指标台",
        template="SMS_1",
        params={"level": "status", "metric": "metric", "text": "text"},
        base_url=stub.url,
        **changes,
    )
    return AliyunSmsChannel("sms", settings, *keys)


def tencent(stub, keys=KEYS, **changes) -> TencentSmsChannel:
    settings = TencentSmsSettings(
        key_id_env="A",
        key_secret_env="B",
        app_id="1400006666",
        sign_name="指标台",
        template="1110",
        params=("status", "metric", "text"),
        base_url=stub.url,
        **changes,
    )
    return TencentSmsChannel("sms", settings, *keys)


@pytest.fixture
def cloud(stub):
    stub.keys[KEYS[0]] = KEYS[1]
    return stub


def test_aliyun_fills_the_template_and_cuts_to_35_characters(cloud):
    assert aliyun(cloud).send(MESSAGE, "13800001111") == "OK OK 900619746936498440^0"
    [sent] = cloud.sms
    assert (sent["PhoneNumbers"], sent["SignName"], sent["TemplateCode"]) == ("13800001111", "指标台", "SMS_1")
    assert sent["OutId"] == MESSAGE.id
    assert sent["TemplateParam"]["level"] == "红色报警"
    assert sent["TemplateParam"]["metric"] == "退款率"
    assert len(sent["TemplateParam"]["text"]) == 35
    assert sent["TemplateParam"]["text"].endswith("…")


def test_tencent_fills_the_parameters_in_order_and_cuts_to_12_characters(cloud):
    assert tencent(cloud).send(MESSAGE, "+86 138-0000-1111").startswith("Ok send success 5000:")
    [sent] = cloud.sms
    assert sent["PhoneNumberSet"] == ["+8613800001111"]
    assert sent["TemplateParamSet"] == ["红色报警", "退款率", "[红色报警] 退款率：…"]
    assert (sent["SmsSdkAppId"], sent["TemplateId"]) == ("1400006666", "1110")


@pytest.mark.parametrize("make", [aliyun, tencent])
def test_an_end_has_a_template_of_its_own_where_one_is_named(cloud, make):
    make(cloud, end_template="SMS_END", locale="en").send(END, "13800001111")
    sent = cloud.sms[0]
    assert sent.get("TemplateCode", sent.get("TemplateId")) == "SMS_END"
    filled = sent["TemplateParamSet"] if "TemplateParamSet" in sent else list(sent["TemplateParam"].values())
    assert filled[:2] == ["RESOLVED", "Refund rate"]


@pytest.mark.parametrize(
    ("code", "text", "kind", "wait"),
    [
        ("isv.BUSINESS_LIMIT_CONTROL", "触发分钟级流控Permits:1", RateLimited, timedelta(minutes=1)),
        ("isv.BUSINESS_LIMIT_CONTROL", "触发小时级流控Permits:5", RateLimited, timedelta(hours=1)),
        ("isv.BUSINESS_LIMIT_CONTROL", "触发天级流控Permits:10", PermanentFailure, None),
        ("Throttling.User", "Request was denied due to user flow control.", RateLimited, timedelta(minutes=1)),
        ("isp.SYSTEM_ERROR", "系统出现错误", TemporaryFailure, None),
        ("isv.MOBILE_NUMBER_ILLEGAL", "手机号码格式错误", PermanentFailure, None),
        ("isv.AMOUNT_NOT_ENOUGH", "账户余额不足", PermanentFailure, None),
        ("isv.SMS_TEMPLATE_ILLEGAL", "该账号下找不到对应模板", PermanentFailure, None),
    ],
)
def test_aliyun_codes_become_classes(cloud, code, text, kind, wait):
    cloud.sms_answers["13800001111"] = (code, text)
    with pytest.raises(kind) as caught:
        aliyun(cloud).send(MESSAGE, "13800001111")
    assert type(caught.value) is kind
    assert caught.value.code == code
    assert text.split()[0] in caught.value.answer
    assert getattr(caught.value, "retry_after", None) == wait


@pytest.mark.parametrize(
    ("code", "kind", "wait"),
    [
        ("LimitExceeded.PhoneNumberThirtySecondLimit", RateLimited, timedelta(seconds=30)),
        ("LimitExceeded.PhoneNumberOneHourLimit", RateLimited, timedelta(hours=1)),
        ("LimitExceeded.PhoneNumberDailyLimit", PermanentFailure, None),
        ("RequestLimitExceeded", RateLimited, timedelta(minutes=1)),
        ("InternalError.Timeout", TemporaryFailure, None),
        ("FailedOperation.InsufficientBalanceInSmsPackage", PermanentFailure, None),
        ("FailedOperation.TemplateIncorrectOrUnapproved", PermanentFailure, None),
        ("InvalidParameterValue.IncorrectPhoneNumber", PermanentFailure, None),
    ],
)
def test_tencent_codes_become_classes(cloud, code, kind, wait):
    cloud.sms_answers["13800001111"] = (code, "said by the vendor")
    with pytest.raises(kind) as caught:
        tencent(cloud).send(MESSAGE, "13800001111")
    assert type(caught.value) is kind
    assert caught.value.code == code
    assert "said by the vendor" in caught.value.answer
    assert getattr(caught.value, "retry_after", None) == wait
    if wait and "Phone" in code:
        assert caught.value.only_address


@pytest.mark.parametrize("make", [aliyun, tencent])
@pytest.mark.parametrize("keys", [("LTAI-key-id", "wrong-secret"), ("nobody", "key-secret-1")])
def test_a_wrong_key_is_final_and_not_told(cloud, make, keys):
    with pytest.raises(PermanentFailure) as caught:
        make(cloud, keys).send(MESSAGE, "13800001111")
    assert "check the" in caught.value.mend
    assert keys[1] not in str(caught.value)


@pytest.mark.parametrize("make", [aliyun, tencent])
@pytest.mark.parametrize("answer", [Answer("<html>", 502), Answer("<html>", 200), Answer(status=0)])
def test_a_broken_answer_is_temporary(cloud, make, answer):
    cloud.scripted.append(answer)
    with pytest.raises(TemporaryFailure):
        make(cloud).send(MESSAGE, "13800001111")


@pytest.mark.parametrize("make", [aliyun, tencent])
def test_no_connection_is_temporary(make):
    class Nowhere:
        url = "http://127.0.0.1:9"

    with pytest.raises(TemporaryFailure, match=r"127\.0\.0\.1"):
        make(Nowhere).send(MESSAGE, "13800001111")


@pytest.mark.parametrize("make", [aliyun, tencent])
@pytest.mark.parametrize("address", ["", "ops", "138;rm"])
def test_a_receiver_without_a_number_is_told_how_to_write_one(cloud, make, address):
    with pytest.raises(PermanentFailure, match=r"write the receiver as <channel>:<number>"):
        make(cloud).send(MESSAGE, address)
    assert cloud.posts == []
