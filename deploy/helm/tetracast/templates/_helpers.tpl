{{- define "tetracast.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- /* Both take (list . COMPONENT). */ -}}
{{- define "tetracast.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: tetracast
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "tetracast.labels" -}}
{{- $root := index . 0 -}}
{{ include "tetracast.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "tetracast.image" -}}
{{- $repository := required "image.repository: where did you push the image that make package makes?" .Values.image.repository -}}
{{- if .Values.image.digest }}{{ $repository }}@{{ .Values.image.digest }}
{{- else }}{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* "true" if Tetragon listens on a unix socket; pre-releases count as their release. */ -}}
{{- define "tetracast.socket" -}}
{{- $version := regexReplaceAll "[-+].*$" (trimPrefix "v" .Values.tetragonVersion) "" -}}
{{- if semverCompare ">=1.7" $version }}true{{ end }}
{{- end }}

{{- define "tetracast.secret" -}}
{{- if and .Values.key.existingSecret .Values.key.value }}{{ fail "key.existingSecret and key.value: give one of them" }}{{ end -}}
{{- if .Values.key.existingSecret }}{{ .Values.key.existingSecret }}
{{- else if .Values.key.value }}{{ include "tetracast.name" . }}-key{{ end }}
{{- end }}

{{- define "tetracast.env" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: HOST_IP
  valueFrom: {fieldRef: {fieldPath: status.hostIP}}
- name: STATE_DIRECTORY
  value: /var/lib/tetracast
{{- end }}

{{- define "tetracast.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end }}

{{- define "tetracast.probes" -}}
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
{{- end }}
