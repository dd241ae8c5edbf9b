#!/usr/bin/env bash
# Runs once, when the volume is new: a role and a database for the server, and a role that may read what is measured.
# Neither is a superuser.
set -euo pipefail

# psql reads the passwords itself, so that they are no arguments, which everybody on the machine could see.
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\set server_password `cat /run/secrets/postgres_password`
\set exporter_password `cat /run/secrets/postgres_exporter_password`
CREATE ROLE switchboard LOGIN PASSWORD :'server_password';
CREATE DATABASE switchboard OWNER switchboard;
CREATE ROLE exporter LOGIN PASSWORD :'exporter_password';
GRANT pg_monitor TO exporter;
SQL
