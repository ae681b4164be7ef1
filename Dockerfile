# syntax=docker/dockerfile:1
# The sidecar, the reference billing API, the demo and the examples in one image: what runs is said by the command.
#   docker build -t outcome-sidecar .
#   docker run --rm outcome-sidecar demo
# Every dependency is a wheel, checked against the hashes of requirements-image.txt: those of requirements.txt and the
# extra `otel`, which nobody can add to an image that has no pip (about 12 MB, and nothing of ours loads it unless an
# endpoint is set). Of the project itself the proxy's hot path is compiled (hatch_build.py); a pure wheel behaves the
# same and costs more of the processor.

# Not the slim image: it has a C compiler.
FROM python:3.11-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/sidecar
COPY requirements-image.txt ./
RUN /opt/sidecar/bin/pip install --require-hashes --only-binary :all: -r requirements-image.txt
COPY requirements-compile.txt ./
RUN python -m venv /opt/compile \
    && /opt/compile/bin/pip install --require-hashes --only-binary :all: -r requirements-compile.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY examples ./examples
COPY sidecar ./sidecar
# The build backend is locked like everything else; once the project is in, neither it nor pip is needed any more.
RUN SIDECAR_COMPILE=1 PYTHONPATH=/opt/compile/lib/python3.11/site-packages \
       /opt/sidecar/bin/pip install --no-deps --no-build-isolation . \
    && /opt/sidecar/bin/pip uninstall --yes hatchling editables packaging pathspec pluggy tomlkit trove-classifiers \
    && /opt/sidecar/bin/pip check \
    && /opt/sidecar/bin/pip uninstall --yes pip setuptools \
    && ln -s lib/python3.11/site-packages/sidecar/_examples /opt/sidecar/examples \
    && python -m compileall -q /opt/sidecar/lib

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="outcome-sidecar" \
      org.opencontainers.image.description="Bills AI agents by outcome: a transparent HTTP sidecar" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/sidecar /opt/sidecar
# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/sidecar
ENV PATH=/opt/sidecar/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SIDECAR_DATA_DIR=/var/lib/sidecar
USER 10001:10001
WORKDIR /var/lib/sidecar
# No HEALTHCHECK: Kubernetes probes /livez and /readyz on the admin address instead, and the image serves two commands.
# Traffic, admin API, billing API.
EXPOSE 8080 8090 8095
STOPSIGNAL SIGTERM
ENTRYPOINT ["sidecar"]
CMD ["run"]
