# One image for all services; docker-compose.yml says which process a container runs.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS packages
# For builds behind a package index of one's own. This stage is left behind, and the values with it.
ARG PIP_INDEX_URL=
ARG PIP_TRUSTED_HOST=
RUN python -m venv /opt/modelmill
COPY requirements.lock /tmp/
RUN /opt/modelmill/bin/pip install --disable-pip-version-check --no-cache-dir \
        --require-hashes --only-binary :all: -r /tmp/requirements.lock \
    # An eighth of the size: the tests that the libraries bring along.
    && find /opt/modelmill -type d -name tests -prune -exec rm -rf {} +

FROM ${PYTHON_IMAGE}
# /data is where the storage volume goes: a new volume takes over the owner that it has here.
RUN groupadd --gid 10001 modelmill \
    && useradd --uid 10001 --gid modelmill --home-dir /var/lib/modelmill --create-home modelmill \
    && install -d -o modelmill -g modelmill /data
COPY --from=packages /opt/modelmill /opt/modelmill
ENV PATH=/opt/modelmill/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MODELMILL_HOME=/var/lib/modelmill \
    MODELMILL_HOST=0.0.0.0 \
    MODELMILL_STORAGE_URL=file:///data

WORKDIR /app
COPY pyproject.toml LICENSE ./
COPY modelmill modelmill
COPY services services
RUN pip install --disable-pip-version-check --no-cache-dir --no-index --no-build-isolation --no-deps -e .
COPY examples examples

# Recorded with each training run: there is no git in the image. Last, because it changes with every commit.
ARG MODELMILL_GIT_COMMIT=unknown
ENV MODELMILL_GIT_COMMIT=${MODELMILL_GIT_COMMIT}

USER modelmill
CMD ["modelmill", "--help"]
