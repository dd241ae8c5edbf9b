# What `pint lint` holds the rules against: all checks that need no running Prometheus. Nothing is excluded but,
# where they stand, that Watchdog always fires and that the month is a group of its own.
parser {
  # Rule files as Prometheus reads them.
  include = ["prometheus/rules/.*[.]yml"]
  schema  = "prometheus"
  names   = "legacy"
}

# Every alert says what the page or ticket is made of.
rule {
  match {
    kind = "alerting"
  }

  label "severity" {
    severity = "bug"
    value    = "page|ticket|none"
    required = true
  }

  label "service" {
    severity = "bug"
    value    = "switchboard"
    required = true
  }

  label "slo" {
    severity = "bug"
    required = true
  }

  label "owner" {
    severity = "bug"
    value    = "platform|call-centre|security"
    required = true
  }

  annotation "summary" {
    severity = "bug"
    required = true
  }

  annotation "description" {
    severity = "bug"
    required = true
  }

  annotation "budget" {
    severity = "bug"
    required = true
  }

  annotation "action" {
    severity = "bug"
    required = true
  }

  annotation "runbook_url" {
    severity = "bug"
    value    = "[{][{] [$]externalLabels[.]docs_url [}][}]/runbooks/.+[.]md"
    required = true
  }

  annotation "dashboard_url" {
    severity = "bug"
    value    = "[{][{] [$]externalLabels[.]grafana_url [}][}]/d/switchboard-.+"
    required = true
  }
}
