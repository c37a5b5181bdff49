# The image of every Drumbeat process; which one it is, its command says.
FROM python:3.13-slim
WORKDIR /app
COPY requirements/app.txt requirements/app.txt
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/app.txt \
 && useradd --system --no-create-home drumbeat
COPY . .
USER drumbeat
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["python", "-m", "cli"]
