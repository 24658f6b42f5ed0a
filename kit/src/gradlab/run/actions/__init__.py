"""What `uses` names: the actions of the service, done here.

script@v1        a script for bash, without options: only its last command's failure counts,
                 so write `set -e` at its beginning
container@v1     the image's program, or `command` and `args`
git-checkout@v1  this project's working tree, or one commit of any repository
s3-download@v1   what lies below s3://BUCKET/PREFIX, by boto3
create-model@v1  an entry in the local model registry
"""
