{{- define "corten.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "corten.fullname" -}}
{{- $name := include "corten.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "corten.controllerAccount" -}}
{{- with .Values.controller.serviceAccount }}
{{- default (ternary (printf "%s-controller" (include "corten.fullname" $)) "default" .create) .name }}
{{- end }}
{{- end }}

{{- define "corten.agentAccount" -}}
{{- with .Values.speaker.serviceAccount }}
{{- default (ternary (printf "%s-agent" (include "corten.fullname" $)) "default" .create) .name }}
{{- end }}
{{- end }}

{{- define "corten.memberSecret" -}}
{{ default (printf "%s-memberlist" (include "corten.fullname" .)) .Values.speaker.secretName }}
{{- end }}

{{- define "corten.labels" -}}
app.kubernetes.io/name: {{ include "corten.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* YAML takes a bare off for false. */}}
{{- define "corten.forward" -}}
{{ default "off" .Values.forward }}
{{- end }}

{{/* What tells one component's Pods from all others, MetalLB's among them. */}}
{{- define "corten.selector" -}}
app.kubernetes.io/name: {{ include "corten.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of Pods: those of MetalLB's manifests too, which tools select by. */}}
{{- define "corten.podLabels" -}}
{{ include "corten.selector" . }}
# By this Corten tells its own Pods from MetalLB's.
corten.dev/component: {{ .component }}
app: metallb
component: {{ .component }}
{{- end }}

{{- define "corten.image" -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end }}

{{/* An HTTP probe of `port`; `probe` has its settings, `host` is empty for the Pod's own address. */}}
{{- define "corten.probe" -}}
httpGet:
  {{- with .host }}
  host: {{ . }}
  {{- end }}
  path: {{ .path }}
  port: {{ .port }}
{{ omit .probe "enabled" | toYaml }}
{{- end }}

{{/* Flags that both processes have. */}}
{{- define "corten.args" -}}
- --log-level={{ .component.logLevel }}
- --port={{ .port }}
{{- with .root.Values.loadBalancerClass }}
- --lb-class={{ . }}
{{- end }}
{{- with .root.Values.tls.minVersion }}
- --tls-min-version={{ . }}
{{- end }}
{{- with .root.Values.tls.cipherSuites }}
- --tls-cipher-suites={{ . }}
{{- end }}
{{- with .root.Values.tls.curvePreferences }}
- --tls-curve-preferences={{ . }}
{{- end }}
{{- if .certificate }}
- --metrics-cert-dir=/etc/metrics-tls
{{- end }}
{{- end }}

{{- define "corten.env" -}}
- name: METALLB_NAMESPACE
  valueFrom:
    fieldRef: {fieldPath: metadata.namespace}
- name: METALLB_POD_NAME
  valueFrom:
    fieldRef: {fieldPath: metadata.name}
{{- end }}

{{- define "corten.scrape" -}}
prometheus.io/scrape: "true"
prometheus.io/scheme: https
prometheus.io/port: {{ .port | quote }}
{{- end }}
