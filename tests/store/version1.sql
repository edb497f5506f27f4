-- The database of Tunesmith 0.1 (schema version 1), as it made it, with a row in every table that people fill.

create table schema_version (version integer not null);
insert into schema_version (version) values (1);
CREATE TABLE workspaces (
    id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    description VARCHAR,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (name)
);
CREATE TABLE leases (
    device VARCHAR NOT NULL,
    holder_kind VARCHAR NOT NULL,
    holder_id VARCHAR NOT NULL,
    taken_at DATETIME NOT NULL,
    PRIMARY KEY (device)
);
CREATE TABLE filesets (
    id VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    description VARCHAR,
    purpose VARCHAR NOT NULL,
    metadata JSON NOT NULL,
    custom_fields JSON NOT NULL,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (workspace, name),
    FOREIGN KEY(workspace) REFERENCES workspaces (name)
);
CREATE TABLE models (
    id VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    description VARCHAR,
    fileset VARCHAR NOT NULL,
    spec JSON,
    base_model VARCHAR,
    finetuning_type VARCHAR,
    custom_fields JSON NOT NULL,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (workspace, name),
    FOREIGN KEY(workspace) REFERENCES workspaces (name)
);
CREATE TABLE jobs (
    id VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    description VARCHAR,
    backend VARCHAR NOT NULL,
    spec JSON NOT NULL,
    "plan" JSON NOT NULL,
    inputs JSON NOT NULL,
    model_ref VARCHAR NOT NULL,
    output_ref VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    phase VARCHAR NOT NULL,
    status_details JSON NOT NULL,
    error_details JSON,
    ownership JSON,
    custom_fields JSON,
    attempt_id VARCHAR NOT NULL,
    attempt INTEGER NOT NULL,
    events_offset BIGINT NOT NULL,
    keeper JSON,
    ending JSON,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (workspace, name),
    FOREIGN KEY(workspace) REFERENCES workspaces (name)
);
CREATE INDEX jobs_by_output ON jobs (output_ref, phase);
CREATE INDEX jobs_by_phase ON jobs (phase, created_at);
CREATE TABLE deployment_configs (
    id VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    description VARCHAR,
    engine VARCHAR NOT NULL,
    model_spec JSON NOT NULL,
    executor_config JSON NOT NULL,
    model_entity_id VARCHAR,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (workspace, name),
    FOREIGN KEY(workspace) REFERENCES workspaces (name)
);
CREATE TABLE files (
    fileset_id VARCHAR NOT NULL,
    path VARCHAR NOT NULL,
    digest VARCHAR NOT NULL,
    size BIGINT NOT NULL,
    created_at DATETIME NOT NULL,
    PRIMARY KEY (fileset_id, path),
    FOREIGN KEY(fileset_id) REFERENCES filesets (id) ON DELETE CASCADE
);
CREATE TABLE adapters (
    id VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    description VARCHAR,
    model_id VARCHAR NOT NULL,
    fileset_id VARCHAR NOT NULL,
    finetuning_type VARCHAR NOT NULL,
    enabled BOOLEAN NOT NULL,
    rank INTEGER,
    alpha INTEGER,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (workspace, name),
    FOREIGN KEY(workspace) REFERENCES workspaces (name),
    FOREIGN KEY(model_id) REFERENCES models (id) ON DELETE CASCADE,
    FOREIGN KEY(fileset_id) REFERENCES filesets (id)
);
CREATE INDEX ix_adapters_model_id ON adapters (model_id);
CREATE TABLE job_steps (
    id VARCHAR NOT NULL,
    job_id VARCHAR NOT NULL,
    task_id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    status VARCHAR NOT NULL,
    status_details JSON NOT NULL,
    error_details JSON,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (job_id, name),
    FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
CREATE TABLE metrics (
    job_id VARCHAR NOT NULL,
    series VARCHAR NOT NULL,
    step INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    value FLOAT,
    PRIMARY KEY (job_id, series, step),
    FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
CREATE TABLE deployments (
    id VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    description VARCHAR,
    config_id VARCHAR NOT NULL,
    model_ref VARCHAR NOT NULL,
    lora_enabled BOOLEAN NOT NULL,
    status VARCHAR NOT NULL,
    status_message VARCHAR NOT NULL,
    status_history JSON NOT NULL,
    attempt INTEGER NOT NULL,
    keeper JSON,
    port INTEGER,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (workspace, name),
    FOREIGN KEY(workspace) REFERENCES workspaces (name),
    FOREIGN KEY(config_id) REFERENCES deployment_configs (id)
);
CREATE INDEX ix_deployments_config_id ON deployments (config_id);

insert into workspaces values
    ('workspace-1', 'default', 'General-purpose workspace', '2026-11-23 08:00:00.000000', '2026-11-23 08:00:00.000000'),
    ('workspace-2', 'system', 'Resources that the platform provides', '2026-11-23 08:00:00.000000', '2026-11-23 08:00:00.000000');
insert into filesets values
    ('fileset-1', 'default', 'weights', '', 'generic', '{"model": null}', '{"team": "a"}', '2026-11-23 08:00:01.000000', '2026-11-23 08:00:01.000000'),
    ('fileset-2', 'default', 'tuned', 'by a job', 'model', '{}', '{}', '2026-11-23 08:00:02.000000', '2026-11-23 08:00:02.000000');
insert into files values
    ('fileset-1', 'config.json', 'aa11', 12, '2026-11-23 08:00:03.000000'),
    ('fileset-2', 'adapter_config.json', 'bb22', 34, '2026-11-23 08:00:04.000000');
insert into models values
    ('model-1', 'default', 'base', 'a base', 'default/weights', '{"family": "llama"}', null, null, '{"spec_status": "completed", "spec_error": null, "mine": 1}', '2026-11-23 08:00:05.000000', '2026-11-23 08:00:05.000000'),
    ('model-2', 'default', 'broken', null, 'default/tuned', 'null', 'default/base', 'lora', '{"spec_status": "failed", "spec_error": "no config.json"}', '2026-11-23 08:00:06.000000', '2026-11-23 08:00:06.000000');
insert into adapters values
    ('adapter-1', 'default', 'tuned', 'from a job', 'model-1', 'fileset-2', 'lora', 1, 8, 16, '2026-11-23 08:00:07.000000', '2026-11-23 08:00:07.000000');
insert into jobs values
    ('platform-job-1', 'default', 'first', null, 'automodel', '{"output": {"name": "tuned", "description": null}}', '{}', '{}', 'default/base', 'default/tuned', 'completed', 'done', '{"phase": "done"}', 'null', 'null', '{"priority": 1}', 'platform-job-attempt-1', 1, 512, 'null', 'null', '2026-11-23 08:00:08.000000', '2026-11-23 08:00:09.000000');
insert into job_steps values
    ('platform-job-step-1', 'platform-job-1', 'platform-job-task-1', 'training', 1, 'completed', '{}', 'null', '2026-11-23 08:00:08.000000', '2026-11-23 08:00:09.000000');
insert into metrics values ('platform-job-1', 'train_loss', 1, 1, 2.5), ('platform-job-1', 'train_loss', 2, 1, null);
insert into leases values ('cpu:0', 'job', 'platform-job-1', '2026-11-23 08:00:08.000000');
insert into deployment_configs values
    ('model-deployment-config-1', 'default', 'serve', null, 'nim', '{"model_name": "base"}', '{}', 'default/base', '2026-11-23 08:00:10.000000', '2026-11-23 08:00:10.000000');
insert into deployments values
    ('model-deployment-1', 'default', 'live', null, 'model-deployment-config-1', 'default/base', 1, 'READY', 'serving', '[]', 1, '{"pid": 1}', 8001, '2026-11-23 08:00:11.000000', '2026-11-23 08:00:11.000000');
