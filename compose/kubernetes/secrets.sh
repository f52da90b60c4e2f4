#!/bin/sh
# The Secrets that pilothouse.yaml names, out of what ../make-secrets.sh made, each with no more than its process needs:
#
#   compose/kubernetes/secrets.sh | kubectl apply -f -
#
# Kafka and ClickHouse are told the same: `pilothouse storage grants` makes ClickHouse's users with these passwords; Kafka's
# (SCRAM) are its administrator's to make: `kafka-configs.sh --alter --entity-type users --entity-name pilothouse-governor
# --add-config SCRAM-SHA-512=[password=…]`. The passwords of `admin` must be those of your own administrators.
set -eu
cd "$(dirname "$0")/../secrets"

secret() {
  name=$1
  shift
  files=""
  for file in "$@"; do files="$files --from-file=$file"; done
  # shellcheck disable=SC2086  # a list of options
  kubectl create secret generic "$name" --namespace=pilothouse --dry-run=client --output=yaml $files
  echo "---"
}

passwords=""
for user in admin migrations archiver importer governor advisor control_room reader; do
  passwords="$passwords clickhouse_${user}_password"
done
# shellcheck disable=SC2086  # a list of files
secret pilothouse-prepare kafka_admin_password $passwords
secret pilothouse-governor kafka_governor_password clickhouse_governor_password keys/governor.key keys/trusted.keys
secret pilothouse-archiver kafka_archiver_password clickhouse_archiver_password
secret pilothouse-advisor kafka_advisor_password clickhouse_advisor_password keys/advisor.key keys/trusted.keys
secret pilothouse-control-room kafka_operator_password clickhouse_control_room_password keys/operator.key keys/trusted.keys \
  control_room_tokens.json
