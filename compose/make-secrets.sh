#!/bin/sh
# Makes every secret that compose.yaml names and that can be made: one file each in compose/secrets, which only your account may enter.
# What is there already stays as it is: after a new user or a new password, remove its file and what was derived from it
# (kafka_jaas.conf, kafka_admin.properties, clickhouse_admin.xml, control_room_tokens.json), and run this again.
#
#   compose/make-secrets.sh [NAME...]     NAME: how trainers on other machines call this host (for Kafka's certificate)
#
# Needs openssl, and pilothouse: on the PATH, or as the image that `docker compose build` makes.
set -eu

secrets=$(cd "$(dirname "$0")" && pwd)/secrets
mkdir -p "$secrets"
chmod 700 "$secrets"
cd "$secrets"
umask 077

is_missing() { test ! -s "$1"; }
password() { is_missing "$1" && openssl rand -hex 24 > "$1"; return 0; }
read_from() { tr -d '\n' < "$1"; }

# ----------------------------------------------------------------------------------------------------------------- Kafka

for user in admin rank governor archiver advisor operator; do password "kafka_${user}_password"; done

if is_missing kafka_jaas.conf; then
  {
    echo "KafkaServer {"
    echo "  org.apache.kafka.common.security.plain.PlainLoginModule required"
    echo "  username=\"admin\" password=\"$(read_from kafka_admin_password)\""
    for user in rank governor archiver advisor operator; do
      echo "  user_pilothouse-$user=\"$(read_from "kafka_${user}_password")\""
    done
    echo "  user_admin=\"$(read_from kafka_admin_password)\";"
    echo "};"
  } > kafka_jaas.conf
fi

if is_missing kafka_admin.properties; then
  {
    echo "security.protocol=SASL_PLAINTEXT"
    echo "sasl.mechanism=PLAIN"
    echo "sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\"
    echo "  username=\"admin\" password=\"$(read_from kafka_admin_password)\";"
  } > kafka_admin.properties
fi

if is_missing kafka_server.pem; then
  names="DNS:localhost,DNS:kafka,IP:127.0.0.1"
  for name in "$@"; do names="$names,DNS:$name"; done
  openssl req -x509 -newkey rsa:3072 -nodes -days 3650 -subj "/CN=Pilothouse Kafka authority" \
    -keyout kafka_ca.key -out kafka_ca.pem 2> /dev/null
  openssl req -newkey rsa:3072 -nodes -subj "/CN=kafka" -keyout kafka_server.key -out kafka_server.csr 2> /dev/null
  printf 'subjectAltName=%s\n' "$names" > kafka_server.cnf
  openssl x509 -req -in kafka_server.csr -CA kafka_ca.pem -CAkey kafka_ca.key -CAcreateserial -days 825 \
    -extfile kafka_server.cnf -out kafka_server.crt 2> /dev/null
  cat kafka_server.key kafka_server.crt kafka_ca.pem > kafka_server.pem
  rm -f kafka_server.key kafka_server.csr kafka_server.cnf kafka_server.crt kafka_ca.srl
fi

# ------------------------------------------------------------------------------------------------------------ ClickHouse

for user in admin migrations archiver importer governor advisor control_room reader; do
  password "clickhouse_${user}_password"
done

if is_missing clickhouse_admin.xml; then
  hash=$(read_from clickhouse_admin_password | openssl dgst -sha256 -r | cut -d ' ' -f 1)
  cat > clickhouse_admin.xml <<XML
<clickhouse>
  <users>
    <default remove="remove"/>
    <admin>
      <password_sha256_hex>$hash</password_sha256_hex>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <access_management>1</access_management>
    </admin>
  </users>
</clickhouse>
XML
fi

# ------------------------------------------------------------------------------------------------- control room, Grafana

for name in operator_token prometheus_token grafana_admin_password; do password "$name"; done

if is_missing control_room_tokens.json; then
  cat > control_room_tokens.json <<JSON
[
  {"name": "operator", "role": "operator", "token": "$(read_from operator_token)"},
  {"name": "prometheus", "role": "viewer", "token": "$(read_from prometheus_token)"}
]
JSON
fi

# ----------------------------------------------------------------------------------------------------------- signing keys

if is_missing keys/trusted.keys; then
  if command -v pilothouse > /dev/null; then
    pilothouse keys ensure --keys "$secrets/keys"
  else
    docker run --rm --user "$(id -u):$(id -g)" --env HOME=/tmp --env PILOTHOUSE_DATA_DIR=/tmp --volume "$secrets:/secrets" \
      pilothouse:0.1.0 keys ensure --keys /secrets/keys
  fi
fi

# ------------------------------------------------------------------------------------------- what only you can know of

empty=""
for name in alertmanager_pagerduty_routing_key alertmanager_slack_webhook alertmanager_webhook_url alertmanager_smtp_password \
  alertmanager_heartbeat_url alertmanager_governor_heartbeat_url alertmanager_pagerduty_escalation_key llm_api_key; do
  test -e "$name" || : > "$name"
  test -s "$name" || empty="$empty $name"
done

# Containers run as users of their own, and see of this folder only the files that compose.yaml gives them.
chmod a+r ./* keys/*
chmod a+rx keys
chmod go= kafka_ca.key
if test -n "$empty"; then
  echo "in $secrets, empty until you write them:$empty"
fi
