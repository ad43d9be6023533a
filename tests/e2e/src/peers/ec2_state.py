# Prints an instance's state, as the cloud's own client sees it.
import sys

import boto3

url, region, key, secret, instance = sys.argv[1:]
ec2 = boto3.client(
    "ec2", endpoint_url=url, region_name=region, aws_access_key_id=key, aws_secret_access_key=secret
)
found = ec2.describe_instances(InstanceIds=[instance])
print(found["Reservations"][0]["Instances"][0]["State"]["Name"])
