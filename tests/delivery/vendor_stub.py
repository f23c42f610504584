"""A local server that answers as the vendors document, errors included.

DingTalk, WeCom and Feishu bots (signatures, key words, sizes, rates), the Feishu app API, Aliyun and Tencent SMS (request
signatures checked), a Standard Webhooks receiver, and any HTTP status. Real HTTP on a real port; the clock can be set.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit

from standardwebhooks import Webhook, WebhookVerificationError

HOUR = 3600


@dataclass
class Bot:
    """One group bot: what it asks for, and what it has got."""

    secret: str = ""
    keyword: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    silent_until: float = 0.0


@dataclass(frozen=True)
class Post:
    """One request as it came."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What the stub answers."""

    body: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class VendorStub:
    """The server. Use as a context manager; `url` is its base."""

    def __init__(self) -> None:
        self.clock: Callable[[], float] = time.time
        self.posts: list[Post] = []
        self.scripted: list[Answer] = []
        """Answers given before anything else, one a request."""
        self.down: Answer | None = None
        """Answers everything while it is set: the vendor is down. Status 0 hangs up."""
        self.lost_answers = 0
        """So many of the next requests are taken, but their sender never hears of it."""
        self.delay = 0.0
        self.dingtalk: dict[str, Bot] = {}
        self.wecom: dict[str, Bot] = {}
        self.feishu: dict[str, Bot] = {}
        self.feishu_apps: dict[str, str] = {}
        self.feishu_people: dict[str, str] = {}
        """Phone → open_id."""
        self.images: list[bytes] = []
        self.keys: dict[str, str] = {}
        """Access key id → secret, of both clouds."""
        self.sms: list[dict[str, Any]] = []
        self.sms_answers: dict[str, tuple[str, str]] = {}
        """Phone → code and message that the vendor has for it."""
        self.webhook_secret = ""
        self.events: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def __enter__(self) -> VendorStub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, post: Post) -> Answer:
        with self._lock:
            self.posts.append(post)
            if self.down is not None:
                return self.down
            if self.scripted:
                return self.scripted.pop(0)
            answer = self._taken(post)
            if self.lost_answers:
                self.lost_answers -= 1
                return Answer(status=0)
            return answer

    def _taken(self, post: Post) -> Answer:
        if post.path == "/robot/send":
            return self._dingtalk(post)
        if post.path == "/cgi-bin/webhook/send":
            return self._wecom(post)
        if post.path.startswith("/open-apis/bot/v2/hook/"):
            return self._feishu(post)
        if post.path.startswith("/open-apis/"):
            return self._feishu_app(post)
        if "x-acs-action" in post.headers:
            return self._aliyun(post)
        if "x-tc-action" in post.headers:
            return self._tencent(post)
        if post.path == "/webhook":
            return self._webhook(post)
        return Answer({"error": "no such path"}, 404)

    # -- DingTalk: open.dingtalk.com, custom bot ------------------------------------------------------------------

    def _dingtalk(self, post: Post) -> Answer:
        def refuse(code: int, text: str) -> Answer:
            return Answer({"errcode": code, "errmsg": text})

        bot = self.dingtalk.get(post.query.get("access_token", ""))
        if bot is None:
            return refuse(300005, "token is not exist")
        if "application/json" not in post.headers.get("content-type", ""):
            return refuse(43004, "需要content-type=application/json")
        if self._is_too_fast(bot, 20, silence=600):
            return refuse(130101, "send too fast, exceed 20 times per minute")
        if bot.secret:
            stamp = post.query.get("timestamp", "")
            digest = hmac.new(bot.secret.encode(), f"{stamp}\n{bot.secret}".encode(), hashlib.sha256).digest()
            if post.query.get("sign") != base64.b64encode(digest).decode():
                return refuse(310000, "sign not match, more: [https://open.dingtalk.com/document/robots/customize]")
            if abs(self.clock() - int(stamp) / 1000) > HOUR:
                return refuse(310000, "invalid timestamp")
        if len(post.body) > 20_000:
            return refuse(460101, "message too long, exceed 20000 bytes")
        content = post.json
        if content.get("msgtype") != "markdown" or not content["markdown"].get("title"):
            return refuse(40035, "缺少参数 json")
        if bot.keyword and bot.keyword not in content["markdown"]["title"] + content["markdown"]["text"]:
            return refuse(
                310000, "keywords not in content, more: [https://open.dingtalk.com/document/robots/customize]"
            )
        bot.messages.append(content)
        return refuse(0, "ok")

    # -- WeCom: developer.work.weixin.qq.com, group bot -----------------------------------------------------------

    def _wecom(self, post: Post) -> Answer:
        def refuse(code: int, text: str) -> Answer:
            return Answer({"errcode": code, "errmsg": text})

        bot = self.wecom.get(post.query.get("key", ""))
        if bot is None:
            return refuse(93000, "invalid webhook url, hint: [1672133087235733], from ip: 127.0.0.1")
        if self._is_too_fast(bot, 20):
            return refuse(45009, "api freq out of limit")
        content = post.json
        kind = content.get("msgtype")
        if kind in ("markdown", "text"):
            longest = {"markdown": 4096, "text": 2048}[kind]
            if len(content[kind]["content"].encode()) > longest:
                return refuse(40058, f"{kind}.content exceed max length {longest}. invalid Request Parameter")
        elif kind == "image":
            image = base64.b64decode(content["image"]["base64"])
            if hashlib.md5(image).hexdigest() != content["image"]["md5"]:
                return refuse(301019, "media md5 not match")
            if len(image) > 2 << 20:
                return refuse(40009, "invalid image size")
        else:
            return refuse(40008, "invalid message type")
        bot.messages.append(content)
        return refuse(0, "ok")

    # -- Feishu: open.feishu.cn, custom bot and app API -----------------------------------------------------------

    def _feishu(self, post: Post) -> Answer:
        def refuse(code: int, text: str) -> Answer:
            return Answer({"code": code, "data": {}, "msg": text})

        bot = self.feishu.get(post.path.rpartition("/")[2])
        if bot is None:
            return refuse(19001, "param invalid: incoming webhook access token invalid")
        if self._is_too_fast(bot, 100):
            return refuse(11232, "frequency limited psm[lark.oapi.app_platform_runtime]appID[1500]")
        if len(post.body) > 20 * 1024:
            return refuse(9499, "Bad Request")
        content = post.json
        if bot.secret:
            stamp = content.get("timestamp", "0")
            digest = hmac.new(f"{stamp}\n{bot.secret}".encode(), b"", hashlib.sha256).digest()
            is_old = abs(self.clock() - int(stamp)) > HOUR
            if content.get("sign") != base64.b64encode(digest).decode() or is_old:
                return refuse(19021, "sign match fail or timestamp is not within one hour from current time")
        if bot.keyword and bot.keyword not in json.dumps(content, ensure_ascii=False):
            return refuse(19024, "Key Words Not Found")
        if content.get("msg_type") != "interactive" or not content["card"].get("elements"):
            return refuse(19002, "params error, msg_type need")
        bot.messages.append(content)
        body = {"code": 0, "msg": "success", "data": {}, "Extra": None, "StatusCode": 0, "StatusMessage": "success"}
        return Answer(body)

    def _feishu_app(self, post: Post) -> Answer:
        if post.path.endswith("/auth/v3/tenant_access_token/internal"):
            known = self.feishu_apps.get(post.json["app_id"])
            if known != post.json["app_secret"]:
                return Answer({"code": 10014, "msg": "app secret invalid"})
            return Answer({"code": 0, "msg": "ok", "tenant_access_token": "t-tenant-access-token", "expire": 7200})
        if post.headers.get("authorization") != "Bearer t-tenant-access-token":
            return Answer({"code": 99991663, "msg": "Invalid access token for authorization"}, 400)
        if post.path.endswith("/im/v1/images"):
            if b'name="image_type"' not in post.body or b"\x89PNG" not in post.body:
                return Answer({"code": 234001, "msg": "Invalid request param."}, 400)
            self.images.append(post.body[post.body.index(b"\x89PNG") :])
            return Answer({"code": 0, "msg": "success", "data": {"image_key": f"img_v2_{len(self.images)}"}})
        if post.path.endswith("/contact/v3/users/batch_get_id"):
            users = [
                {"mobile": one, **({"user_id": self.feishu_people[one]} if one in self.feishu_people else {})}
                for one in post.json["mobiles"]
            ]
            return Answer({"code": 0, "msg": "success", "data": {"user_list": users}})
        return Answer({"code": 99991400, "msg": "no such path"}, 404)

    # -- text messages --------------------------------------------------------------------------------------------

    def _aliyun(self, post: Post) -> Answer:
        """Signature version 3, ACS3-HMAC-SHA256 (help.aliyun.com, request syntax and signature V3)."""

        def error(status: int, code: str, text: str) -> Answer:
            body = {"RequestId": "A1B2", "HostId": self.host, "Code": code, "Message": text, "Recommend": ""}
            return Answer(body, status)

        algorithm, _, rest = post.headers["authorization"].partition(" ")
        given = dict(part.split("=", 1) for part in rest.split(","))
        secret = self.keys.get(given["Credential"])
        if secret is None:
            return error(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        names = given["SignedHeaders"].split(";")
        headers = "".join(f"{name}:{post.headers[name].strip()}\n" for name in names)
        query = "&".join(f"{_quoted(key)}={_quoted(value)}" for key, value in sorted(post.query.items()))
        hashed = hashlib.sha256(post.body).hexdigest()
        canonical = f"POST\n{post.path}\n{query}\n{headers}\n{';'.join(names)}\n{hashed}"
        to_sign = f"{algorithm}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        if hmac.new(secret.encode(), to_sign.encode(), hashlib.sha256).hexdigest() != given["Signature"]:
            return error(400, "SignatureDoesNotMatch", "Specified signature is not matched with our calculation.")
        asked = {**post.query, **dict(parse_qsl(post.body.decode()))}
        code, text = self.sms_answers.get(asked["PhoneNumbers"], ("OK", "OK"))
        if code.startswith("Throttling"):
            return error(400, code, text)
        answer = {"Code": code, "Message": text, "RequestId": "A1B2"}
        if code == "OK":
            self.sms.append({**asked, "TemplateParam": json.loads(asked["TemplateParam"])})
            answer["BizId"] = "900619746936498440^0"
        return Answer(answer)

    def _tencent(self, post: Post) -> Answer:
        """TC3-HMAC-SHA256 (cloud.tencent.com, signature v3); an error is a field of an HTTP 200."""

        def error(code: str, text: str) -> Answer:
            return Answer({"Response": {"Error": {"Code": code, "Message": text}, "RequestId": "C3D4"}})

        algorithm, _, rest = post.headers["authorization"].partition(" ")
        given = dict(part.strip().split("=", 1) for part in rest.split(","))
        key_id, _, scope = given["Credential"].partition("/")
        secret = self.keys.get(key_id)
        if secret is None:
            return error(
                "AuthFailure.SecretIdNotFound",
                "The SecretId is not found, please ensure that your SecretId is correct.",
            )
        stamp = post.headers["x-tc-timestamp"]
        if abs(self.clock() - int(stamp)) > 300:
            return error("AuthFailure.SignatureExpire", "The provided credentials are expired.")
        names = given["SignedHeaders"].split(";")
        headers = "".join(f"{name}:{post.headers[name].strip().lower()}\n" for name in names)
        hashed = hashlib.sha256(post.body).hexdigest()
        canonical = f"POST\n{post.path}\n\n{headers}\n{';'.join(names)}\n{hashed}"
        to_sign = f"{algorithm}\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"TC3{secret}".encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        if hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest() != given["Signature"]:
            return error("AuthFailure.SignatureFailure", "The provided credentials could not be validated.")
        asked = post.json
        statuses = []
        for phone in asked["PhoneNumberSet"]:
            code, text = self.sms_answers.get(phone, ("Ok", "send success"))
            if code.startswith(("RequestLimitExceeded", "InternalError")):
                return error(code, text)
            serial = "5000:1045710669157053657849499619" if code == "Ok" else ""
            status = {"SerialNo": serial, "PhoneNumber": phone, "Fee": 1, "SessionContext": asked["SessionContext"]}
            statuses.append({**status, "Code": code, "Message": text, "IsoCode": "CN"})
            if code == "Ok":
                self.sms.append(asked)
        return Answer({"Response": {"SendStatusSet": statuses, "RequestId": "C3D4"}})

    # -- others ---------------------------------------------------------------------------------------------------

    def _webhook(self, post: Post) -> Answer:
        try:
            event = Webhook(self.webhook_secret).verify(post.body, post.headers)
        except WebhookVerificationError as error:
            return Answer({"error": str(error)}, 401)
        self.events.append(event)
        return Answer("thanks", 202)

    def _is_too_fast(self, bot: Bot, most: int, *, silence: float = 0.0) -> bool:
        now = self.clock()
        bot.times = [moment for moment in bot.times if now - moment < 60]
        if now < bot.silent_until:
            return True
        if len(bot.times) >= most:
            bot.silent_until = now + silence
            return True
        bot.times.append(now)
        return False


def _quoted(text: str) -> str:
    return quote(text, safe="~")


def _handler(stub: VendorStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = stub.answer(Post(parts.path, query, headers, body))
            if stub.delay:
                time.sleep(stub.delay)
            if answer.status == 0:  # hang up
                self.close_connection = True
                return
            is_text = isinstance(answer.body, str)
            data = (answer.body if is_text else json.dumps(answer.body, ensure_ascii=False)).encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", "text/plain; charset=utf-8" if is_text else "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
