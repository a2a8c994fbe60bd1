# One image for web, worker, beat, relay and the Stripe sandbox; the command tells them apart.
FROM python:3.12-slim AS packages

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
COPY requirements.txt /tmp/requirements.txt
RUN /opt/venv/bin/pip install --require-hashes --no-deps -r /tmp/requirements.txt


FROM python:3.12-slim

RUN groupadd --gid 10001 zenskar && useradd --uid 10001 --gid zenskar --home-dir /app --no-create-home zenskar \
    # A volume that is mounted here belongs to the user who writes to it: the Stripe sandbox.
    && install -d -o zenskar -g zenskar /state
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=zenskar.settings \
    PORT=8000
WORKDIR /app
COPY --from=packages /opt/venv /opt/venv
COPY manage.py ./
COPY zenskar zenskar
COPY customers customers
COPY projections projections
COPY outbox outbox
COPY operations operations
COPY dbresilience dbresilience
COPY examples examples
RUN python -m compileall -q zenskar customers projections outbox operations dbresilience examples

USER zenskar
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "zenskar.probe", "web"]
CMD ["python", "-m", "zenskar.web"]
