{{/* What the schema cannot say: which values do not go together. */}}
{{- define "corten.refusals" -}}
{{- if and (eq (include "corten.forward" .) "all") (not .Values.apiServer) }}
{{- fail "forward: all needs apiServer: the agents cannot reach the API server by the Service address that they have yet to program" }}
{{- end }}
{{- if and (ne (include "corten.forward" .) "off") (not .Values.sysctls) }}
{{- fail "forward: vips and all need sysctls: net.ipv4.ip_forward=1 at least" }}
{{- end }}
{{- with .Values.prometheus }}
{{- if and .podMonitor.enabled .serviceMonitor.enabled }}
{{- fail "prometheus.podMonitor.enabled and prometheus.serviceMonitor.enabled: one of them, or everything is scraped twice" }}
{{- end }}
{{- if and .rbacPrometheus (or .podMonitor.enabled .serviceMonitor.enabled) (not (and .serviceAccount .namespace)) }}
{{- fail "prometheus.serviceAccount and prometheus.namespace must name Prometheus' account, or prometheus.rbacPrometheus must be false" }}
{{- end }}
{{- end }}
{{- end }}
