"""Settings of the project, read from the environment; every name is listed in the README.

Safe by default: without any variable there is no DEBUG, no secret key and no host that is answered.
Settings that belong to one app are typed, with their defaults, in that app's ``conf.py``, which reads the
upper-case names below (or the environment's, where a name is missing here).
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import environ
from csp.constants import NONE, SELF

from dbresilience.typed_settings import as_whole
from zenskar.beat import BEAT_SCHEDULE
from zenskar.logs import logging_config, structlog_configure
from zenskar.openapi_settings import SPECTACULAR

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()


def _without_driver(url: str) -> str:
    """Drop a ``+driver`` suffix from the scheme of a database URL, as in ``postgresql+asyncpg://``."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(scheme=parts.scheme.partition("+")[0]))


def _whole(name: str, default: int, high: int, low: int = 0) -> int:
    return as_whole(name, env.str(name, default="").strip() or default, low, high)


# -- Django ------------------------------------------------------------------------------------------------
DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY")
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "operations.apps.ConsoleConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "django_structlog",
    "csp",
    "dbresilience",
    "operations",
    "outbox",
    "projections",
    "customers",
    "zenskar.apps.ZenskarConfig",
]
# The pet store of examples/, which shows the log and the read models in a second domain.
PETSTORE = env.bool("PETSTORE", default=False)
if PETSTORE:
    INSTALLED_APPS.append("examples.petstore.apps.PetstoreConfig")

MIDDLEWARE = [
    # Outermost, so that every answer carries the id and the headers, whoever gives it.
    "operations.correlation.CorrelationMiddleware",
    "zenskar.requests.AnswerHeadersMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "zenskar.requests.RequestLogMiddleware",
    "operations.request_limits.RequestLimitsMiddleware",
    # After the body was read, which may take its client long and costs the threads beyond the places alone.
    "zenskar.bulkhead.BulkheadMiddleware",
    "operations.throttling.RateLimitMiddleware",
    "zenskar.requests.ConsoleSlashMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "zenskar.requests.ProblemMiddleware",
]

ROOT_URLCONF = "zenskar.urls"
WSGI_APPLICATION = "zenskar.wsgi.application"
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # Before the apps' own folders, so that the console's pages win over the admin's.
        "DIRS": [BASE_DIR / "operations" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

DATABASES = {
    "default": env.db_url_config(_without_driver(env.str("DATABASE_URL", default="postgresql://localhost/zenskar")))
}

# One pool per process, sized and timed by the DB_ settings of dbresilience.conf; a request, task or pass of a loop
# borrows a connection and gives it back. OPTIONS["pool"] stays unset: Celery would close the pool around every task.
DATABASES["default"] |= {"ENGINE": "dbresilience.postgresql", "CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False}

# The processes of one machine, each with a pool of its own: those of gunicorn and of the worker, the relay, the beat, a
# consumer of Kafka and one command beside them. A system check holds their sum against max_connections.
CELERY_WORKER_CONCURRENCY = _whole("CELERY_WORKER_CONCURRENCY", 2, 1000, low=1)
DB_PROCESSES = _whole("DB_PROCESSES", _whole("WEB_CONCURRENCY", 2, 1000, low=1) + CELERY_WORKER_CONCURRENCY + 4, 10_000)

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False
FORMAT_MODULE_PATH = ["zenskar.formats"]
STATIC_URL = "static/"
# Files are served from the packages they came in: there is nothing to collect, and nothing to forget to collect.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# -- Security ----------------------------------------------------------------------------------------------
# HTTPS=false is for plain http on one's own machine; everything else expects TLS in front.
HTTPS = env.bool("HTTPS", default=True)
TRUSTED_PROXIES = _whole("TRUSTED_PROXIES", 0, 100)
if TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = HTTPS
# Orchestrators and Prometheus ask from inside, without TLS.
SECURE_REDIRECT_EXEMPT = [r"^livez/?$", r"^readyz/?$", r"^metrics/?$"]
SECURE_HSTS_SECONDS = _whole("HSTS_SECONDS", 31_536_000, 3_153_600_000) if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS and env.bool("HSTS_INCLUDE_SUBDOMAINS", default=True)
SECURE_HSTS_PRELOAD = HTTPS and env.bool("HSTS_PRELOAD", default=True)
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Strict"
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 12 * 60 * 60
# Browsers take a cookie of such a name only over TLS, for one host and for all its paths.
SESSION_COOKIE_NAME = "__Host-sessionid" if HTTPS else "sessionid"
CSRF_COOKIE_NAME = "__Host-csrftoken" if HTTPS else "csrftoken"
CSRF_FAILURE_VIEW = "zenskar.problems.csrf_failure"
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
API_RATE_LIMIT = _whole("API_RATE_LIMIT", 12_000, 100_000_000)
LOGIN_ATTEMPTS = _whole("LOGIN_ATTEMPTS", 10, 1_000_000, low=1)
LOGIN_WINDOW = _whole("LOGIN_WINDOW", 900, 31_536_000, low=1)
METRICS_TOKEN = env.str("METRICS_TOKEN", default="")

# -- Logging -----------------------------------------------------------------------------------------------
structlog_configure()
LOGGING = logging_config(form=env.str("LOG_FORMAT", default="auto"), level=env.str("LOG_LEVEL", default="INFO"))
# One line a request, when it is over.
DJANGO_STRUCTLOG_STATUS_START_LOG_LEVEL = 10
DJANGO_STRUCTLOG_STATUS_4XX_LOG_LEVEL = 20
DJANGO_STRUCTLOG_USER_ID_FIELD = ""
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False
DJANGO_STRUCTLOG_CELERY_ENABLED = True
# Tasks run several times a second and say themselves what they did.
DJANGO_STRUCTLOG_CELERY_DEFAULT_LOG_LEVEL = 10

# -- Outside services --------------------------------------------------------------------------------------
REDIS_URL = env.str("REDIS_URL", default="redis://localhost:6379/0")
KAFKA_BOOTSTRAP_SERVERS = env.str("KAFKA_BOOTSTRAP_SERVERS", default=env.str("KAFKA_BROKERS", default=""))
KAFKA_TOPIC_PREFIX = env.str("KAFKA_TOPIC_PREFIX", default="zenskar")
STRIPE_API_KEY = env.str("STRIPE_API_KEY", default="")
STRIPE_API_BASE = env.str("STRIPE_API_BASE", default="")
STRIPE_WEBHOOK_SECRETS = env.list("STRIPE_WEBHOOK_SECRET", default=[])

# Alerts by e-mail go here; ALERT_CHANNELS and the other settings of the notifier say whether and to whom.
vars().update(env.email("EMAIL_URL", default="smtp://localhost:25"))
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="zenskar@localhost")

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "zenskar",
        "OPTIONS": {"socket_connect_timeout": 0.25, "socket_timeout": 0.25},
    }
}

# -- Celery ------------------------------------------------------------------------------------------------
CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_connect_timeout": 5, "socket_timeout": 30, "socket_keepalive": True}
CELERY_TASK_IGNORE_RESULT = True
# Acknowledged before the run: a task takes what is due from rows, and beat sends the next one in a moment. Redelivering
# a lost one after the broker's hour would add nothing.
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_SOFT_TIME_LIMIT = 240
CELERY_TASK_TIME_LIMIT = 300
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_RESULT_EXPIRES = None
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = BEAT_SCHEDULE
CELERY_BEAT_SCHEDULER = "zenskar.schedule:TableScheduler"

# -- The log and its subscribers ---------------------------------------------------------------------------
# How news of changed customers reaches the synchronisation: straight from the log, or through Kafka by a worker.
SYNC_ROUTE = env.str("SYNC_ROUTE", default="") or "log"
OUTBOX_SUBSCRIBERS: list[str] = [] if SYNC_ROUTE == "kafka" else ["customers.sync.pokes.SyncPokes"]
if KAFKA_BOOTSTRAP_SERVERS:
    OUTBOX_SUBSCRIBERS.append("outbox.kafka.KafkaSubscriber")
OUTBOX_RELAY_COMPANIONS: list[str] = [
    "customers.sync.webhooks.webhooks_process_once",
    "customers.sagas.runner.sagas_due_once",
    "customers.sync.runner.sync_due_once",
    "operations.long_actions.runner.operations_run_once",
    "projections.runner.projections_run_once",
]
# What an operator may make of an event that is edited and published again.
OUTBOX_PAYLOAD_VALIDATORS: str | dict[str, str] = env.str("OUTBOX_PAYLOAD_VALIDATORS", "") or {
    "customer.*": "customers.edited_events.customer_event_validate"
}
# Modules whose functions handle what ``manage.py kafka_worker`` consumes.
KAFKA_HANDLERS: list[str] = ["customers.sync.consuming"] if SYNC_ROUTE == "kafka" else []
if PETSTORE:
    KAFKA_HANDLERS.append("examples.petstore.shipping")
PROJECTIONS: list[str] = [
    "customers.readmodels.directory.CustomerDirectory",
    "customers.readmodels.activity.CustomerActivity",
]
if PETSTORE:
    PROJECTIONS.append("examples.petstore.order_book.OrderBook")
INTEGRATIONS: dict[str, str] = {"stripe": "customers.stripe.integration.StripeIntegration"}

# -- The API -----------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "operations.authentication.ApiKeyAuthentication",
        "operations.authentication.StaffSessionAuthentication",
    ],
    "DEFAULT_THROTTLE_CLASSES": ["operations.throttling.PerKeyThrottle"],
    "DEFAULT_PERMISSION_CLASSES": ["operations.permissions.HasScope"],
    "DEFAULT_PARSER_CLASSES": ["operations.json_bodies.StrictJsonParser"],
    "DEFAULT_RENDERER_CLASSES": ["operations.json_bodies.JsonRenderer"],
    "DEFAULT_SCHEMA_CLASS": "operations.idempotency.schema.IdempotentSchema",
    "EXCEPTION_HANDLER": "zenskar.problems.exception_handler",
    "URL_FORMAT_OVERRIDE": None,
    "FORMAT_SUFFIX_KWARG": None,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "TEST_REQUEST_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
SPECTACULAR_SETTINGS = SPECTACULAR
