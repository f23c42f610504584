"""The shop's fixed facts: regions and their cities, channels, warehouses, payment methods, segments, categories, ad channels.

Shares sum to one. Every fact has one place here; the other modules refer to members by position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TIMEZONE = "Asia/Shanghai"
UTC_OFFSET = 8 * 3600
"""Seconds. China has had no daylight saving since 1991, so the offset is a constant of every simulated year."""
CURRENCY = "CNY"

REGIONS = ("华北", "华东", "华南", "华中", "西南", "西北", "东北")
REGION_SHARE = np.array([0.17, 0.33, 0.19, 0.12, 0.10, 0.04, 0.05])
CITIES = (
    ("北京", "天津", "石家庄", "太原"),
    ("上海", "杭州", "南京", "苏州", "宁波", "合肥"),
    ("广州", "深圳", "佛山", "南宁", "海口"),
    ("武汉", "长沙", "郑州", "南昌"),
    ("成都", "重庆", "昆明", "贵阳"),
    ("西安", "兰州", "乌鲁木齐", "银川"),
    ("沈阳", "大连", "哈尔滨", "长春"),
)

CHANNELS = ("app", "mini_program", "web", "live_stream", "marketplace")
CHANNEL_SHARE = np.array([0.36, 0.24, 0.10, 0.12, 0.18])
CHANNEL_CONVERSION = np.array([1.12, 0.98, 0.72, 1.05, 0.96])
CHANNEL_BOUNCE = np.array([0.34, 0.44, 0.53, 0.46, 0.42])
CHANNEL_RETURNING = np.array([1.12, 1.00, 0.90, 0.72, 1.02])
"""How much likelier than average an order of the channel is from someone who bought before."""

SEGMENTS = ("new", "active", "loyal", "vip", "dormant")

PAYMENT_METHODS = ("alipay", "wechat_pay", "unionpay", "credit_card", "huabei")
PAYMENT_SHARE = np.array([0.40, 0.35, 0.07, 0.06, 0.12])
PAYMENT_SUCCESS = np.array([0.935, 0.94, 0.885, 0.87, 0.91])
"""Chance that one attempt with the method succeeds."""

WAREHOUSES = ("北京仓", "上海仓", "广州仓", "武汉仓", "成都仓", "西安仓")
WAREHOUSE_OF_REGION = np.array([0, 1, 2, 3, 4, 5, 0])
"""The warehouse that serves each region first; 东北 is served from 北京仓."""
WAREHOUSE_SHARE = np.bincount(WAREHOUSE_OF_REGION, REGION_SHARE)
CARRIERS = ("顺丰速运", "京东物流", "中通快递", "圆通速递")

AD_CHANNELS = ("douyin", "wechat_ads", "baidu_search", "xiaohongshu", "kuaishou", "alimama")
AD_CHANNEL_ZH = ("抖音", "微信广告", "百度搜索", "小红书", "快手", "阿里妈妈")
AD_CHANNEL_SHARE = np.array([0.28, 0.21, 0.12, 0.14, 0.10, 0.15])
AD_COST_PER_CLICK = np.array([6.2, 5.6, 7.4, 5.9, 4.9, 6.8])
"""Yuan."""

REFUND_REASONS = ("七天无理由", "质量问题", "尺码不合", "描述不符", "物流太慢", "拍错多拍")
COMPLAINT_TOPICS = ("物流慢", "质量问题", "描述不符", "少发错发", "客服态度", "价格争议")
LATE_TOPIC, QUALITY_TOPIC = 0, 1


@dataclass(frozen=True)
class Category:
    """A top category: how much it sells, at which price, when, and how often it comes back."""

    name: str
    share: float
    median_price: float
    price_spread: float
    cost_ratio: float
    refund_rate: float
    season_height: float
    season_peak_month: float
    brands: tuple[str, ...]
    goods: tuple[str, ...]


CATEGORIES = (
    Category(
        "服饰鞋包",
        0.19,
        149,
        0.55,
        0.52,
        0.101,
        0.18,
        11.5,
        ("云裳", "素野", "木棉里", "逐光"),
        ("连帽卫衣", "羽绒服", "直筒牛仔裤", "运动鞋", "单肩包", "针织衫"),
    ),
    Category(
        "美妆个护",
        0.15,
        119,
        0.60,
        0.45,
        0.049,
        0.05,
        11.0,
        ("花汐", "澄颜", "青柠屿", "露白"),
        ("保湿面霜", "精华液", "口红", "洗发水", "防晒霜", "面膜"),
    ),
    Category(
        "食品生鲜",
        0.16,
        58,
        0.45,
        0.66,
        0.022,
        0.16,
        1.0,
        ("山野集", "禾家", "满仓", "小麦田"),
        ("坚果礼盒", "牛奶整箱", "车厘子", "速食面", "挂耳咖啡", "腊味礼盒"),
    ),
    Category(
        "家居日用",
        0.13,
        69,
        0.55,
        0.55,
        0.052,
        0.04,
        9.0,
        ("简舍", "暖居", "林木物语", "净园"),
        ("四件套", "收纳箱", "保温杯", "垃圾袋", "台灯", "地垫"),
    ),
    Category(
        "手机数码",
        0.09,
        329,
        0.95,
        0.78,
        0.062,
        0.06,
        9.5,
        ("星驰", "微光", "锐影", "极序"),
        ("蓝牙耳机", "充电宝", "手机壳", "智能手表", "平板电脑", "移动硬盘"),
    ),
    Category(
        "家用电器",
        0.07,
        369,
        0.80,
        0.72,
        0.050,
        0.20,
        6.5,
        ("清云", "恒温", "厨小匠", "蓝域"),
        ("空气炸锅", "电风扇", "电饭煲", "扫地机器人", "加湿器", "破壁机"),
    ),
    Category(
        "母婴亲子",
        0.08,
        109,
        0.55,
        0.60,
        0.038,
        0.04,
        5.5,
        ("贝瓦", "小鹿", "初蕾", "安芽"),
        ("纸尿裤", "婴儿奶粉", "儿童积木", "奶瓶", "童装套装", "绘本"),
    ),
    Category(
        "运动户外",
        0.06,
        139,
        0.65,
        0.54,
        0.071,
        0.18,
        5.0,
        ("岭行", "迅跑", "野径", "极川"),
        ("瑜伽垫", "冲锋衣", "跑步鞋", "露营帐篷", "骑行头盔", "哑铃"),
    ),
    Category(
        "图书文具",
        0.04,
        42,
        0.45,
        0.62,
        0.021,
        0.22,
        8.7,
        ("知言", "墨白", "纸上", "方格"),
        ("中性笔", "笔记本", "畅销小说", "考试教辅", "手账本", "画材套装"),
    ),
    Category(
        "宠物用品",
        0.03,
        79,
        0.55,
        0.58,
        0.030,
        0.03,
        11.0,
        ("毛球", "爪印", "喵星", "汪汪"),
        ("猫粮", "狗粮", "猫砂", "宠物窝", "逗猫棒", "冻干零食"),
    ),
)
CATEGORY_NAMES = tuple(category.name for category in CATEGORIES)
STYLES = ("轻享", "经典", "臻选", "升级", "简约", "高端", "家庭装", "便携", "联名", "新款")
