"""DingTalk, WeCom and Feishu over HTTP: what arrives, who is called, and what each refusal becomes."""

from __future__ import annotations

import base64
import json
import logging
import time
from datetime import timedelta

import pytest

from metrics_pipeline.alerts.notice import Counts
from metrics_pipeline.delivery.channels import PermanentFailure, RateLimited, TemporaryFailure
from metrics_pipeline.delivery.channels.bots import rebased
from metrics_pipeline.delivery.channels.configuration import Mentions
from metrics_pipeline.delivery.channels.dingtalk import DingTalkChannel
from metrics_pipeline.delivery.channels.feishu import FeishuChannel
from metrics_pipeline.delivery.channels.redaction import keep_secret
from metrics_pipeline.delivery.channels.wecom import WeComChannel
from metrics_pipeline.delivery.messages import Wording, compose
from tests.alerts.builders import make_card
from tests.delivery.builders import make_end, make_notice, make_slice
from tests.delivery.vendor_stub import Answer, Bot

MESSAGE = compose(make_notice())
END = compose(make_end())
LONG = compose(
    make_notice(
        slices=tuple(make_slice(f"一个很长的品类名字{n}" * 12, instance=f"r{{x={n}}}") for n in range(20)),
        counts=Counts(new=500, firing=500, red=500),
        rule=make_card(owner="负责人" * 300, annotations={"summary_zh": "摘要" * 3000, "summary": "summary " * 3000}),
    )
)
TOKEN = "abcdef0123456789abcdef0123456789"


@pytest.fixture
def dingtalk(stub):
    stub.dingtalk[TOKEN] = Bot()

    def make(**options) -> DingTalkChannel:
        return DingTalkChannel("ops", keep_secret(f"{stub.url}/robot/send?access_token={TOKEN}"), **options)

    return make


@pytest.fixture
def wecom(stub):
    stub.wecom[TOKEN] = Bot()

    def make(**options) -> WeComChannel:
        return WeComChannel("ops", keep_secret(f"{stub.url}/cgi-bin/webhook/send?key={TOKEN}"), **options)

    return make


@pytest.fixture
def feishu(stub):
    stub.feishu[TOKEN] = Bot()

    def make(**options) -> FeishuChannel:
        return FeishuChannel("ops", keep_secret(f"{stub.url}/open-apis/bot/v2/hook/{TOKEN}"), **options)

    return make


@pytest.fixture(params=["dingtalk", "wecom", "feishu"])
def bot(request, stub):
    """Any of the three, and what the stub keeps of it."""
    make = request.getfixturevalue(request.param)
    return make, getattr(stub, request.param)


# -- all three ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [MESSAGE, END, LONG], ids=["first", "end", "long"])
def test_whatever_is_said_the_vendor_takes_it(bot, message):
    make, bots = bot
    assert make().send(message, "").startswith("0 ")
    said = json.dumps(bots[TOKEN].messages[0], ensure_ascii=False)
    assert message.metric_name("zh") in said
    assert "负责人" in said
    assert "checkDetail=refund_rate_surge" in said


def test_an_unknown_token_is_final_and_never_told(bot, stub):
    make, bots = bot
    bots.clear()
    with pytest.raises(PermanentFailure) as caught:
        make().send(MESSAGE, "")
    assert caught.value.code in ("300005", "93000", "19001")
    assert "copy the bot's address again" in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_the_next_message_after_too_many_waits_as_the_vendor_says(bot, stub):
    make, bots = bot
    channel = make()
    bots[TOKEN].times = [time.time()] * 100
    with pytest.raises(RateLimited) as caught:
        channel.send(MESSAGE, "")
    waits = {"130101": timedelta(minutes=10), "45009": timedelta(minutes=1), "11232": timedelta(minutes=1)}
    assert caught.value.retry_after == waits[caught.value.code]


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (Answer({"errcode": -1, "errmsg": "系统繁忙", "code": -1, "msg": "busy"}), TemporaryFailure, "-1"),
        (Answer("<html>bad gateway</html>", 502), TemporaryFailure, "502"),
        (Answer("<html>login</html>", 200), TemporaryFailure, ""),
        (Answer("", 404), PermanentFailure, "404"),
        (Answer("", 302, {"Location": "http://127.0.0.1:1/"}), PermanentFailure, "302"),
        (Answer("", 429, {"Retry-After": "7"}), RateLimited, "429"),
        (Answer({"hello": 1}), TemporaryFailure, ""),
        (Answer([1]), TemporaryFailure, ""),
    ],
)
def test_other_answers_are_sorted_by_what_they_are(bot, stub, answer, kind, code):
    make, _ = bot
    stub.scripted.append(answer)
    with pytest.raises(kind) as caught:
        make().send(MESSAGE, "")
    assert type(caught.value) is kind
    assert caught.value.code == code
    if answer.status == 429:
        assert caught.value.retry_after == timedelta(seconds=7)


def test_no_connection_and_no_answer_are_temporary(bot, stub):
    make, _ = bot
    channel = make()
    stub.scripted.append(Answer(status=0))
    with pytest.raises(TemporaryFailure) as caught:
        channel.send(MESSAGE, "")
    assert stub.host in str(caught.value)
    gone = type(channel)("ops", channel.url.replace(stub.host, "127.0.0.1:9"))
    with pytest.raises(TemporaryFailure, match=r"127\.0\.0\.1:9"):
        gone.send(MESSAGE, "")


def test_no_log_line_has_the_token(bot, caplog):
    make, _ = bot
    with caplog.at_level(logging.DEBUG):
        make().send(MESSAGE, "")
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(make())


def test_a_name_cannot_call_people_or_make_links(bot):
    make, bots = bot
    evil = "<@all><at id=all></at>[click](https://evil.example)"
    notice = make_notice(slices=(make_slice(evil), make_slice("b")), rule=make_card(name_zh=evil, owner=evil))
    make().send(compose(notice), "13800001111")
    for message in bots[TOKEN].messages:
        body = message.get("markdown") or message.get("text") or message.get("card", {}).get("elements", [{}])[0]
        said = body.get("text") or body.get("content") or ""
        assert "<@all>" not in said
        assert "<at id=all>" not in said
        assert "](https://evil.example)" not in said or message.get("msgtype") == "text"  # which has no links


def test_nobody_is_called_by_an_end(bot):
    make, bots = bot
    make(mention=Mentions(phones=("13800001111",), users=("ou_ann",), all=True)).send(END, "13900002222")
    assert "1380000" not in json.dumps(bots[TOKEN].messages)
    assert "ou_ann" not in json.dumps(bots[TOKEN].messages)


def test_a_gateway_takes_the_place_of_the_vendors_host():
    url = "https://oapi.dingtalk.com/robot/send?access_token=x"
    assert rebased(url, "http://gate.shop:8080/dd/") == "http://gate.shop:8080/dd/robot/send?access_token=x"
    assert rebased(url, None) == url


# -- DingTalk ----------------------------------------------------------------------------------------------------------


def test_dingtalk_signs_in_the_query_once_encoded(stub, dingtalk):
    stub.dingtalk[TOKEN].secret = "SECabcdef"
    for second in range(40):  # some signatures have + or /, which an encoding too many would break
        stub.dingtalk[TOKEN].times.clear()
        moment = time.time() + second
        assert dingtalk(secret="SECabcdef", clock=lambda moment=moment: moment).send(END, "") == "0 ok"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"secret": "SECwrong"}, "sign not match"),
        ({}, "sign not match"),
        ({"secret": "SECabcdef", "clock": lambda: time.time() - 3700}, "invalid timestamp"),
    ],
)
def test_dingtalk_refuses_bad_signatures_and_old_ones(stub, dingtalk, options, says):
    stub.dingtalk[TOKEN].secret = "SECabcdef"
    with pytest.raises(PermanentFailure, match=says) as caught:
        dingtalk(**options).send(MESSAGE, "")
    assert caught.value.code == "310000"
    assert "security settings" in caught.value.mend


def test_dingtalk_adds_the_key_word_where_it_lacks(stub, dingtalk):
    stub.dingtalk[TOKEN].keyword = "值班"
    with pytest.raises(PermanentFailure, match="keywords not in content"):
        dingtalk().send(MESSAGE, "")
    assert dingtalk(keyword="值班").send(MESSAGE, "") == "0 ok"


def test_dingtalk_calls_by_phone_and_id_in_text_and_list(stub, dingtalk):
    dingtalk(mention=Mentions(phones=("13800001111",), users=("manager7",))).send(MESSAGE, "+8613900002222,@ann,@all")
    [message] = stub.dingtalk[TOKEN].messages
    assert message["at"] == {
        "atMobiles": ["13800001111", "+8613900002222"],
        "atUserIds": ["manager7", "ann"],
        "isAtAll": True,
    }
    for name in ("@13800001111", "@manager7", "@ann"):
        assert name in message["markdown"]["text"]


def test_a_message_calls_people_of_its_own(stub, dingtalk):
    dingtalk().send(compose(make_notice(), mentions=("13800001111", "manager7")), "ann")
    at = stub.dingtalk[TOKEN].messages[0]["at"]
    assert (at["atMobiles"], at["atUserIds"]) == (["13800001111"], ["manager7", "ann"])


def test_dingtalk_is_told_the_largest_message_that_fits(stub, dingtalk):
    dingtalk().send(LONG, "")
    body = stub.posts[-1].body
    assert 2_000 < len(body) <= 20_000
    assert json.loads(body)["markdown"]["text"].count("查看检查") == 1


def test_yellow_alerts_call_only_those_of_the_address(stub, dingtalk):
    yellow = compose(make_notice(tier="yellow", slices=(make_slice(tier="yellow"),)))
    dingtalk(mention=Mentions(phones=("13800001111",))).send(yellow, "13900002222")
    dingtalk(mention=Mentions(phones=("13800001111",), when="always")).send(yellow, "")
    called = [message["at"]["atMobiles"] for message in stub.dingtalk[TOKEN].messages]
    assert called == [["13900002222"], ["13800001111"]]


# -- WeCom -------------------------------------------------------------------------------------------------------------


def test_wecom_gets_markdown_a_call_by_phone_and_the_plot(stub, wecom):
    answer = wecom(mention=Mentions(users=("ann",), phones=("13800001111",))).send(MESSAGE, "")
    assert answer == "0 ok"
    markdown, text, image = stub.wecom[TOKEN].messages
    assert markdown["markdown"]["content"].endswith("<@ann>")
    assert text["text"]["mentioned_mobile_list"] == ["13800001111"]
    assert base64.b64decode(image["image"]["base64"]).startswith(b"\x89PNG")


def test_wecom_limit_counts_what_one_notification_needs(wecom):
    assert wecom().limit == 9
    assert wecom(plot=False).limit == 18
    assert wecom(mention=Mentions(phones=("13800001111",))).limit == 6


def test_wecom_text_keeps_to_4096_bytes_and_splits_no_character(stub, wecom):
    wecom(plot=False).send(LONG, ",".join(f"user{n}" for n in range(40)))
    content = stub.wecom[TOKEN].messages[0]["markdown"]["content"]
    assert len(content.encode()) <= 4096
    assert "�" not in content
    assert content.endswith("<@user39>")


def test_a_plot_that_wecom_refuses_never_sends_the_alert_again(stub, wecom):
    ok = Answer({"errcode": 0, "errmsg": "ok"})
    stub.scripted += [ok, Answer({"errcode": 45009, "errmsg": "api freq out of limit"})]
    assert wecom().send(MESSAGE, "") == "0 ok; without the plot: 45009 api freq out of limit"


def test_a_call_by_phone_that_fails_is_a_failure(stub, wecom):
    stub.scripted += [Answer({"errcode": 0, "errmsg": "ok"}), Answer({"errcode": 45009, "errmsg": "api freq"})]
    with pytest.raises(RateLimited):
        wecom().send(MESSAGE, "13800001111")


# -- Feishu ------------------------------------------------------------------------------------------------------------


def test_feishu_signs_in_the_body(stub, feishu):
    stub.feishu[TOKEN].secret = "Gkv9wx"
    assert feishu(secret="Gkv9wx").send(MESSAGE, "") == "0 success"
    for options in ({"secret": "wrong"}, {}, {"secret": "Gkv9wx", "clock": lambda: time.time() - 3700}):
        with pytest.raises(PermanentFailure, match="sign match fail") as caught:
            feishu(**options).send(MESSAGE, "")
        assert caught.value.code == "19021"


def test_feishu_adds_the_key_word(stub, feishu):
    stub.feishu[TOKEN].keyword = "值班"
    with pytest.raises(PermanentFailure, match="Key Words Not Found"):
        feishu().send(MESSAGE, "")
    assert feishu(keyword="值班").send(MESSAGE, "") == "0 success"


def test_feishu_card_has_the_tier_the_body_and_the_links(stub, feishu):
    feishu(mention=Mentions(users=("ou_ann", "bob@shop.example"), all=True)).send(MESSAGE, "")
    card = stub.feishu[TOKEN].messages[0]["card"]
    assert card["header"] == {"template": "red", "title": {"tag": "plain_text", "content": MESSAGE.title}}
    body, buttons = card["elements"]
    for said in ("13.2%", "3.2% – 7.2%", "after-sales", "<at id=ou_ann></at>", "<at email=bob@shop.example></at>"):
        assert said in body["content"]
    assert "<at id=all></at>" in body["content"]
    assert [one["url"] for one in buttons["actions"]] == [MESSAGE.link, "https://wiki.example/refunds"]
    feishu().send(END, "")
    assert stub.feishu[TOKEN].messages[1]["card"]["header"]["template"] == "green"


def test_feishu_with_an_app_uploads_the_plot_and_finds_people_by_phone(stub, feishu):
    stub.feishu_apps["cli_a1"] = "app-secret-1"
    stub.feishu_people["13800001111"] = "ou_found"
    answer = feishu(app_id="cli_a1", app_secret="app-secret-1").send(MESSAGE, "13800001111,13900002222")
    assert answer == "0 success"
    elements = stub.feishu[TOKEN].messages[0]["card"]["elements"]
    assert elements[1] == {"tag": "img", "img_key": "img_v2_1", "alt": {"tag": "plain_text", "content": MESSAGE.title}}
    assert "<at id=ou_found></at>" in elements[0]["content"]
    assert "@13900002222" in elements[0]["content"]


def test_feishu_sends_the_card_also_when_its_app_fails(stub, feishu):
    answer = feishu(app_id="cli_a1", app_secret="wrong-secret").send(MESSAGE, "13800001111")
    assert answer == "0 success; without the app's part: 10014 app secret invalid"
    assert "@13800001111" in stub.feishu[TOKEN].messages[0]["card"]["elements"][0]["content"]


def test_english_installations_get_english_first(stub, feishu):
    feishu().send(compose(make_notice(), Wording("en")), "")
    card = stub.feishu[TOKEN].messages[0]["card"]
    assert card["header"]["title"]["content"].startswith("[RED] Refund rate")
    assert "退款率" in card["elements"][0]["content"]
