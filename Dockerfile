# syntax=docker/dockerfile:1

# --- build: a virtual environment with the pinned packages and the gateway's wheel ------------------------------------
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# For the gateway's own request path, which is compiled (tools/compile.py); it stays in this stage. So do the packages that
# are installed a second time below, for exercising that path while the compiler watches.
RUN apt-get update -qq \
 && apt-get install -qq -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*

# The packages before the source: they change seldom, so this layer is usually cached. Only wheels, so that nothing runs at
# installation; pip itself stays out of the environment that is shipped.
COPY constraints/build.txt constraints/compile.txt constraints/run.txt constraints/
RUN python -m venv --without-pip /opt/gateway \
 && pip --python /opt/gateway/bin/python install --only-binary :all: --require-hashes -r constraints/run.txt \
 && pip install --only-binary :all: --require-hashes -r constraints/build.txt -r constraints/compile.txt -r constraints/run.txt

COPY pyproject.toml README.md LICENSE ./
COPY tools tools
COPY gateway gateway
RUN GATEWAY_COMPILE=1 python -m hatchling build -t wheel \
 && pip --python /opt/gateway/bin/python install --no-deps dist/*.whl

# --- run --------------------------------------------------------------------------------------------------------------
FROM python:3.13-slim
# What config/gateway.yaml reads: inside a container, loopback would be reachable by nobody.
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GATEWAY_LISTEN=0.0.0.0:8080 \
    ADMIN_LISTEN=0.0.0.0:9901 \
    GATEWAY_STATE=/var/lib/gateway
COPY --from=build /opt/gateway /opt/gateway
COPY config /etc/gateway
# The only folder it may write to: the denylist's snapshot, and embedded stores, as in `sqlite:///var/lib/gateway/issuer.db`.
RUN install -d -o 10001 -g 10001 -m 0750 /var/lib/gateway
VOLUME /var/lib/gateway
WORKDIR /var/lib/gateway

# A number, so that Kubernetes' runAsNonRoot can tell.
USER 10001:10001
EXPOSE 8080 9901
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['ADMIN_LISTEN'].rpartition(':')[2] + '/health/ready', timeout=2)"]
ENTRYPOINT ["gateway"]
CMD ["serve", "--config", "/etc/gateway/gateway.yaml"]
