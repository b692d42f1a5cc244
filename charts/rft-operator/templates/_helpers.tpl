{{- define "rft.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "rft.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "rft.name" .) -}}
{{- end -}}

{{- define "rft.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "rft.labels" -}}
{{ include "rft.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* With a digest the tag is only for readers: the digest decides. */}}
{{- define "rft.image" -}}
{{- with .root.Values.imageRegistry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- with .image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* Families of a Service's addresses. */}}
{{- define "rft.families" -}}
{{- with .Values.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.ipFamilies }}
ipFamilies: {{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{/* Host of the ingest in URLs: the pinned address, or the Service's name. */}}
{{- define "rft.ingestHost" -}}
{{- with .Values.ingest.clusterIP -}}
{{- if contains ":" . }}[{{ . }}]{{ else }}{{ . }}{{ end -}}
{{- else -}}
{{- printf "%s-ingest.%s.svc" (include "rft.name" .) .Release.Namespace -}}
{{- end -}}
{{- end -}}

{{- define "rft.webhookName" -}}
{{- printf "%s-webhook" (include "rft.name" .) -}}
{{- end -}}

{{/* Cluster-scoped, so the namespace is in the name. */}}
{{- define "rft.webhookConfiguration" -}}
{{- printf "%s-%s" .Release.Namespace (include "rft.webhookName" .) -}}
{{- end -}}

{{/* Another name than the operator's: its Deployment and the ingest's Service must not select these pods. */}}
{{- define "rft.webhookSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-webhook
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "rft.webhookLabels" -}}
{{ include "rft.webhookSelector" . }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Security context of the operator's and the webhook's pods. */}}
{{- define "rft.podSecurity" -}}
{{- if eq (toString .Values.assignsUsers) "true" -}}
{{- toYaml (omit .Values.podSecurityContext "runAsUser" "runAsGroup" "fsGroup") -}}
{{- else -}}
{{- toYaml .Values.podSecurityContext -}}
{{- end -}}
{{- end -}}

{{/* Rights in the namespaces of the jobs. They mirror rft_operator/cluster.py. */}}
{{- define "rft.rules" -}}
- apiGroups: [rft.dev]
  resources: [rftjobs]
  verbs: [get, list, watch]
- apiGroups: [rft.dev]
  resources: [rftjobs/status]
  verbs: [patch]
# For blockOwnerDeletion, where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [rft.dev]
  resources: [rftjobs/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
{{- if .Values.kueue.read }}
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
- apiGroups: [visibility.kueue.x-k8s.io]
  resources: [localqueues/pendingworkloads]
  verbs: [get]
{{- end }}
{{- if .Values.logs.read }}
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
{{- end }}
# Deleted, and made anew, when a suspended run goes on with other resources: it is immutable.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, create]
- apiGroups: [""]
  resources: [events]
  verbs: [create, list]
# Whether the namespace wants a CPU limit on every container.
- apiGroups: [""]
  resources: [resourcequotas, limitranges]
  verbs: [list]
{{- end -}}

{{/* Where operator and webhook go: to the API server, and to DNS for its name. A Service's address is replaced by that of
an endpoint before a policy is asked, so the ports are the endpoints'. */}}
{{- define "rft.egress" -}}
- ports:
  {{- range .Values.networkPolicy.apiServer.ports }}
  - port: {{ . }}
    protocol: TCP
  {{- end }}
  {{- with .Values.networkPolicy.apiServer.cidrs }}
  to:
  {{- range . }}
  - ipBlock:
      cidr: {{ . | quote }}
  {{- end }}
  {{- end }}
- ports:
  - port: 53
    protocol: UDP
  - port: 53
    protocol: TCP
{{- end -}}

{{/* One node that goes should not take all replicas along. Takes the labels of the pods, as YAML. */}}
{{- define "rft.spread" -}}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- . | nindent 6 }}
{{- end -}}

{{/* Pods of a lost node are replaced sooner than after Kubernetes' default of 300 s: nothing is lost with them. */}}
{{- define "rft.tolerations" -}}
{{- range list "not-ready" "unreachable" }}
- key: node.kubernetes.io/{{ . }}
  operator: Exists
  effect: NoExecute
  tolerationSeconds: {{ $.Values.lostNodeSeconds }}
{{- end }}
{{- with .Values.tolerations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "rft.budgetVersion" -}}
{{- if semverCompare "<1.21-0" .Capabilities.KubeVersion.Version }}policy/v1beta1{{ else }}policy/v1{{ end -}}
{{- end -}}

{{/* The Secret that the webhook mounts: a given one, or cert-manager's. Empty: the webhook makes its own. */}}
{{- define "rft.webhookSecret" -}}
{{- $tls := .Values.webhook.tls -}}
{{- if $tls.certManager.enabled }}{{ include "rft.webhookName" . }}-cert{{ else }}{{ $tls.existingSecret }}{{ end -}}
{{- end -}}

{{/* The Certificate whose CA cert-manager tells the API server. */}}
{{- define "rft.webhookInjectFrom" -}}
{{- $tls := .Values.webhook.tls -}}
{{- if $tls.certManager.enabled -}}
{{ .Release.Namespace }}/{{ include "rft.webhookName" . }}
{{- else -}}
{{ $tls.injectCAFrom }}
{{- end -}}
{{- end -}}
